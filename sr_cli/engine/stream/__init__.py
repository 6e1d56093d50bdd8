"""Pictures that are too large to be held: computed and written row by row.

Only the input is whole in memory, in its own integers. Every layer keeps the rows that its next
ones depend on, so that nothing is computed twice, the result is that of the whole picture, and the
memory does not depend on its height.
"""
