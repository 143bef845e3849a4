"""Planted hostile data, made when a test asks for it: models, results. Nothing hostile is committed as a file."""
