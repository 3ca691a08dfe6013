"""A trainer that is asked to end does, whatever it computes: the cycle is repeated after the next start."""

import signal
import subprocess
import sys

ENDS_WITHIN_S = 30.0
LEARNING = """
import asyncio, sys, time
import stream.cli.run, stream.kafka.topics, stream.trainer.service

async def learn(config):
    thread = asyncio.create_task(asyncio.to_thread(time.sleep, 300))
    await asyncio.sleep(0.1)
    print("learning", flush=True)
    await thread

stream.trainer.service.run = learn
stream.cli.run.wait_for_broker = stream.kafka.topics.check_shapes = lambda config: None
sys.argv = ["anabranch", "trainer", "--broker", "127.0.0.1:9", "--data", sys.argv[1]]
stream.cli.main()
"""


def test_a_trainer_that_learns_ends_at_once(tmp_path):
    command = [sys.executable, "-c", LEARNING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        try:
            assert trainer.stdout is not None
            assert trainer.stdout.readline() == "learning\n"
            trainer.send_signal(signal.SIGTERM)
            assert trainer.wait(ENDS_WITHIN_S) == 0
        finally:
            trainer.kill()
