"""Gather pictures from the web so that it can be defended: asked politely, licensed, on record."""
