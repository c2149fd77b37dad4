"""The HTTP door: listening, limits, keys, dispatch. What is said in it is in `ingress/openai`."""
