# Made by unasync.py from _async/__init__.py; change that.
"""The client that waits."""
