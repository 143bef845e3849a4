"""The trust root: which keys may sign reports, which logs count, who may change that, and what the client remembers."""
