"""What runs inside a function: the handler, its loop, and the messages that reach and leave it."""
