"""Bytes -> records: ``sources`` finds and unpacks files, ``reading`` sends each to ``vmkernel`` or ``artifacts``."""
