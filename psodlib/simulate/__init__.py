"""A made-up fleet with known truth, in real file formats.

stories.py  what can go wrong, as a table        process.py  the history, as tables
text.py     a host's life -> its logs and PSODs  folder.py   logs -> files, and the truth beside them
"""

from psodlib.simulate.folder import simulate_fleet
from psodlib.simulate.process import SCENARIOS, History, Process, simulate_history

__all__ = ["SCENARIOS", "History", "Process", "simulate_fleet", "simulate_history"]
