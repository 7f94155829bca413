"""Exceptions of libraries, let go of.

A function that keeps an exception in a variable while it is raised makes a circle: the exception has the traceback,
that the frame, that the variable. In 3.11 such a frame also holds those that called it: a whole session with its
sockets, until the garbage collector passes, which it seldom does here (`garbage`). Our own code keeps what an
exception says. Libraries are not ours: redis-py and geventhttpclient do this where a connection is refused.

Owns only that. Refuses to judge exceptions.
"""

from __future__ import annotations


def let_go(error: BaseException) -> None:
    """Forget where an exception, and all that led to it, came from. For one that has been caught, and of which only
    the words are of use.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        seen.add(id(one))
        one.__traceback__ = None
        waiting += [
            behind for behind in (one.__cause__, one.__context__) if behind is not None and id(behind) not in seen
        ]
