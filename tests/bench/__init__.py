"""Measures how fast users get what they ask for, and compares it with other ways to the same; see script/bench."""
