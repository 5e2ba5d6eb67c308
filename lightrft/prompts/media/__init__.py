"""Images and videos of a prompt: what a row may hold, where it stands in the messages, and how it is decoded."""
