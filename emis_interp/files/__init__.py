"""Turns results into files and files into results: tables, journals, folders."""
