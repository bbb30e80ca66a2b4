"What a record promises across processes: the same bits, and all or nothing."
import os, signal, subprocess, sys
import pytest, torch
from safetensors.torch import load_file
from imgstudy.records.record import read_record

train = '''
from imgstudy.study.create import create_run
from imgstudy.training.train import train
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
    assert any('epoch' in line for line in iter(process.stdout.readline, ''))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not list(runs_dir.glob('*/record.json'))


def test_a_run_killed_while_it_writes_leaves_no_record(runs_dir):
    "It dies when record.json, history and predictions are written and the weights are not."
    die = 'import os, imgstudy.records.record; imgstudy.records.record.save_file = lambda *args: os.kill(os.getpid(), 9)'
    done = subprocess.run([sys.executable, '-c', die + train.format(model='lenet5', epochs=1)], env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    left = [p.name for p in runs_dir.iterdir() if not p.name.endswith('.checkpoint')] # one is kept if the machine is slow
    assert [name.endswith('.part') for name in left] == [True], 'a hidden folder that nobody reads'
    assert not list(runs_dir.glob('[!.]*'))


def test_a_record_is_read_in_a_fresh_process(tmp_path):
    "As the README shows it."
    path = start(root=tmp_path).communicate()[0].split()[-1]
    code = f'from imgstudy.records import *; r = read_record({path!r}); verify_record(r); print(type(load_model(r)).__name__)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'Sequential'
