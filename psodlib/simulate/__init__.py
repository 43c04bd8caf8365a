"""A made-up fleet with known truth, in real file formats.

process.py  the history, as tables       psods.py   a crash -> the PSOD in its dump log
text.py     a host's life -> its logs    folder.py  logs -> files, and the truth beside them
"""

from psodlib.simulate.folder import simulate_fleet
from psodlib.simulate.process import SCENARIOS, History, Process, simulate_history

__all__ = ["SCENARIOS", "History", "Process", "simulate_fleet", "simulate_history"]
