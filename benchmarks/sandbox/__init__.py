"""What the sandbox costs: starts, work inside, reading of models, and many audits in a row."""
