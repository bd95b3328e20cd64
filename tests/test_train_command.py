"""A process of several says why it ends, whatever else is under way."""

import subprocess
import sys

STANDS_FOR_ONE_OF_SEVERAL = """
import argparse, os, signal, sys
from dclib.train import __main__ as command
from dclib.train.distributed import Processes

class Network:
    def __del__(self):
        os.write(2, b"freed")  # where it can wait for the dead

def run(config):
    network = Network()
    {what}

command.join_processes = lambda device: (Processes(0, 2), None)
command.has_joined = lambda: True
command.leave_processes = lambda: None
sys.argv[1:] = []
command.run_main(command.add_settings(argparse.ArgumentParser()), run)
"""


def end(what):
    code = STANDS_FOR_ONE_OF_SEVERAL.format(what=what)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_an_error_is_said_before_anything_is_freed():
    done = end("print('epoch 1'); raise RuntimeError('Another process died.')")
    assert (done.returncode, done.stderr) == (1, "Another process died.\n")
    assert done.stdout == "epoch 1\n"


def test_told_to_stop_it_says_so_even_where_an_exception_would_be_lost():
    done = end(
        """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.getpid()
    except BaseException:
        print("lost")
    print("went on")"""
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("This process was told to stop")
    assert done.stderr.endswith("--resume to go on from the run's state.\n")
