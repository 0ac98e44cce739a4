"""Tables below the leaderboard, one file each: ``NUMBERS`` says which scores a table reads, ``table`` lays them out.

    NUMBERS: name of a number → (benchmark, metric, target or None for any)
    table(rows, mark) → header, cells, lines below; nothing where there is nothing to show

A row of the board holds a table's numbers in ``row.pillars[FILE'S NAME]``. Imports no torch.
"""
