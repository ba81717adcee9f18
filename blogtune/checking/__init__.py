"""The judge's own test: is it fit to decide, and what can it not see?"""
