"""Records -> what happened: signatures, guilt, known issues, boots.

    lists.py         rule lists: one pattern a line, each with its reason
    signature.py     the string that groups crashes of one cause, with how it came about
    guilt.py         the module the evidence points at, and every other suspect
    known_issues.py  which published issues a crash matches, and which conditions are open
    boots.py         one host's boots, how each ended, and the driver version loaded in each
    crashes.py       text -> judged crashes; why they were judged so

Everything here is pure: values in, values out. The only files read are the package's own ``rules/`` and lists that a
user names.
"""
