"""Finetuning jobs of an OpenAI-compatible service."""
