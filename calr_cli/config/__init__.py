"""The settings: schema, presets, loading."""
