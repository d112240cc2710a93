"""How each system is trained: frozen dataclasses of typed fields, made by functions that say what they reach."""
