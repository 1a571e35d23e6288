"""Envelope encryption: the ciphertext format, data keys and master keys."""
