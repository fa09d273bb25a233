"""Writes a recommendation in the forms that other tools take.

Every form is a function from a `Selection` to text, registered in `forms.py`.
"""
