"""OpenAI's API in our words: what requests say, and how answers are written."""
