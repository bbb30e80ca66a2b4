"What a record promises across processes: the same bits, and all or nothing."
import os, signal, subprocess, sys, time
import pytest, torch
from safetensors.torch import load_file
from imgstudy.records import read_record

train = '''
from imgstudy.train import *
print(train(create_run(dataset="digits", model="{model}", epochs={epochs}, subset=300)).path)
'''


def start(model='lenet5', epochs=1, root=None):
    env = {**os.environ, **({'IMGSTUDY_RUNS': str(root)} if root else {})}
    return subprocess.Popen([sys.executable, '-c', train.format(model=model, epochs=epochs)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_two_processes_give_the_same_bits(model, tmp_path):
    paths = [start(model, root=tmp_path/name).communicate()[0].split()[-1] for name in 'ab']
    a, b = (load_file(f'{p}/weights.safetensors') for p in paths)
    assert all(torch.equal(a[k], b[k]) for k in a)
    a, b = (read_record(p) for p in paths)
    assert a.metrics == b.metrics and (a.predictions['log_probs'] == b.predictions['log_probs']).all()


def test_a_killed_run_leaves_no_record(runs_dir):
    process = start(epochs=500) # long enough to be killed, with a line every 50 epochs
    while 'epoch' not in process.stdout.readline(): time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs_dir.exists() or not list(runs_dir.glob('*/record.json'))
