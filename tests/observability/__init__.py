"""The fabric observed from outside."""
