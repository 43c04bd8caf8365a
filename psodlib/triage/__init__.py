"""Records -> what happened: signatures, guilt, known issues, boots.

    lists.py         rule lists: one pattern a line, each with its reason
    modules.py       which words are names of modules, on which release
    frames.py        whose frame it is, and which backtrace can tell
    signature.py     the string that groups crashes of one cause, with how it came about
    precursors.py    what the host's log said before a crash, against its quiet days
    guilt.py         the module the evidence points at, and every other suspect
    known_issues.py  which published issues a crash matches, and which conditions are open
    boots.py         one host's boots, how each ended, and the driver version loaded in each
    devices.py       driver and firmware of each storage and network device
    similar.py       crashes that look alike though their signatures differ: proposals
    changes.py       what changed between two loads of a fleet
    crashes.py       text -> judged crashes; why they were judged so

Everything here is pure: values in, values out. The only files read are the package's own ``rules/`` and lists that a
user names.
"""
