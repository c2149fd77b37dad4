"""Users' handlers in the worker: loading an app, running its handlers, the calls they make."""
