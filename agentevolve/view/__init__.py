"""The inspector: what a run and its memory hold, for looking at, in a browser, in one file, or as JSON.

    from agentevolve.view.index import ReadIndex
    index = ReadIndex(Path("runs/coin"))      # made from the journals, extended as they grow
    index.update()

Everything here only reads: runs and memories may be written meanwhile, and are never locked. The index beside a run is derived
and may be deleted at any time.
"""
