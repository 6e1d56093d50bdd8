"""Pictures that are too large to be held: computed and written by rows of tiles.

Only the input is whole in memory, in its own integers. What a tile needs beyond itself is read with
it or carried over from the tile before, so that the result is that of the whole picture, byte for
byte, and the memory does not depend on its height.
"""
