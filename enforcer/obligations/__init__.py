"""Obligations: what has to be done to a message that may go on: credentials put in, answers masked.

Pure but for equipment.py, which asks for values: a request in, another one out; parts of an answer in, what the agent gets out.
"""
