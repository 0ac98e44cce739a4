"""Tables below the leaderboard, one file each: ``numbers`` says which scores a table reads, ``table`` lays them out.

    numbers(seen) → {name of a number: (benchmark, metric, target or None for any, field of the score record)}
    table(rows, mark) → header, cells, lines below; nothing where there is nothing to show

    across(rows, mark) → the same for a table that compares settings, of all rows, below everything; optional

``seen`` are the (benchmark, metric, target) of the setting's scores, in their order; the field is ``value`` where it is
left out.

A row of the board holds a table's numbers in ``row.pillars[FILE'S NAME]``. Imports no torch.
"""
