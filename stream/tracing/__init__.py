"""Traces: the context of a click travels to its recommendation, and spans show what the worker did with it."""
