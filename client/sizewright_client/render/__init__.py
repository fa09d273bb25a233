"""Answers for people: tables, bars and sentences that read well in 80 columns."""
