"""Vision models that explain themselves."""
