"""A pure model of an inference engine: its batch scheduler and the time a step takes."""
