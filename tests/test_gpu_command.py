"The command `imgstudy gpu`, on the CPU with a few of its rows."
import io, json, os, subprocess, sys
from pathlib import Path
import pytest, torch

top = Path(__file__).parent.parent


def gpu(*words, **env):
    call = [sys.executable, '-c', 'from imgstudy.cli import main; main()', 'gpu', *words]
    return subprocess.run(call, cwd=top, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH='.') | env)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so_in_one_line_and_exits_with_2(tmp_path):
    done = gpu('--out', str(tmp_path))
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and 'no NVIDIA GPU' in done.stderr and not [*tmp_path.iterdir()]


def test_some_rows_on_the_cpu(tmp_path):
    done = gpu('--cpu', '--only', '1,cnn_custom,16 lenet5,pytorch,hf_trainer,perceptron2', '--out', str(tmp_path/'gpu.json'))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path/'gpu.json').read_text())
    rows = {r['name']: r for r in record['rows']}
    assert record['what'] == 'gpu' and record['few_images'] and not record['to_come'] and not record['no_time']
    assert not [r for r in rows.values() if 'error' in r]
    assert rows['pytorch, lenet5']['ours_over_peer'] > 0 and rows['16 lenet5 as one']['images_per_s'] > 0
    assert len(done.stdout.splitlines()) == len(rows) + 1


def test_a_row_that_fails_stops_nothing():
    from imgstudy.gpu import Bench, Row, measure_row
    got = measure_row(Bench(cpu=True), Row(1, 'bad', lambda bench: 1/0))
    assert got['error'] == 'ZeroDivisionError: division by zero' and got['name'] == 'bad'


def test_what_there_is_no_time_for_is_listed(tmp_path):
    from imgstudy.gpu import gpu_rows, measure_gpu
    record = measure_gpu(.1, tmp_path, '2,7', cpu=True)
    assert record['no_time'] == [r.name for r in gpu_rows('2,7')] and record['rows'] == []
    assert len([*tmp_path.glob('gpu-*.json')]) == 1


slow = """
import time, pytest
def test_a(): pass
@pytest.mark.parametrize('options', [dict(model='vit', bs=3)], ids=str)
def test_b(options): assert 1 == 2
def test_c(): pytest.skip('no card')
def test_d(): time.sleep(60)
"""


def test_what_the_time_limit_cuts_keeps_the_ends_of_the_tests_before_it(tmp_path, monkeypatch):
    "Without `-v` pytest says nothing of a test until all are over, and `-q` in the options of a project takes it back."
    import time
    from imgstudy import gpu as module
    from types import SimpleNamespace
    from imgstudy.gpu import ended_tests, stop_tests
    (tmp_path/'test_slow.py').write_text(slow)
    (tmp_path/'pyproject.toml').write_text((top/'pyproject.toml').read_text())
    started = []
    with monkeypatch.context() as m:
        m.setattr(module.subprocess, 'Popen', lambda words, **kwargs: started.extend(words))
        module.start_tests(module.Bench(cpu=True))
    flags = started[started.index('cuda') + 1:]
    with open(tmp_path/'out', 'w+') as out:
        tests = subprocess.Popen([sys.executable, '-m', 'pytest', 'test_slow.py', *flags], stdout=out, stderr=subprocess.STDOUT, cwd=tmp_path)
        for _ in range(300):
            if 'SKIPPED' in (tmp_path/'out').read_text(): break
            time.sleep(.1)
        assert not stop_tests(SimpleNamespace(tests=tests), .1)
    ends = ended_tests((tmp_path/'out').read_text())
    assert ends.pop('reasons', {}).get("test_b[{'model': 'vit', 'bs': 3}]", 'assert 1 == 2').endswith('assert 1 == 2')
    assert ends == dict(passed=['test_a'], failed=["test_b[{'model': 'vit', 'bs': 3}]"], skipped=['test_c'])


def test_the_tests_that_need_a_card_are_all_started(monkeypatch, tmp_path):
    "They name each test as it ends, and are waited for last."
    import re
    from imgstudy import gpu as module
    started = []
    monkeypatch.setattr(module.subprocess, 'Popen', lambda words, **kwargs: started.append(words))
    module.start_tests(module.Bench(cpu=True))
    with_card = {f.name for f in (top/'tests').glob('test_*.py') if re.search(r'^@pytest.mark.cuda', f.read_text(), re.M)}
    assert {Path(w).name for w in started[0] if w.endswith('.py')} == with_card and '-v' in started[0] and '-q' not in started[0]
    assert module.gpu_rows()[-1].measure is module.end_tests


def test_tests_that_have_ended_are_told_when_the_time_is_over(monkeypatch):
    "A row before them may take longer than it should."
    import time
    from types import SimpleNamespace
    from imgstudy import gpu as module
    late = module.Row(5, 'late', lambda bench: time.sleep(.3) or {}, 0)
    def start(bench):
        bench.tests, bench.tests_out = SimpleNamespace(poll=lambda: 0, wait=lambda seconds: 0), io.StringIO('tests/test_a.py::test_b PASSED [100%]')
        return dict(started=True)
    rows = [module.Row(8, 'CUDA tests start', start, 0), late, late, module.Row(8, 'CUDA tests', module.end_tests, 0)]
    monkeypatch.setattr(module, 'gpu_rows', lambda only='': rows)
    record = module.measure_gpu(.2, cpu=True)
    assert record['rows'][-1]['name'] == 'CUDA tests' and record['rows'][-1]['passed'] == ['test_b']


@pytest.mark.parametrize('before', [None, '', '/elsewhere', '/a:/b'])
def test_processes_of_its_own_find_what_this_one_finds(before, monkeypatch):
    from imgstudy.gpu import _child_env
    monkeypatch.delenv('PYTHONPATH', raising=False)
    if before is not None: monkeypatch.setenv('PYTHONPATH', before)
    assert _child_env(A='b')['PYTHONPATH'].split(':') == [str(top), *(before.split(':') if before else [])] and _child_env(A='b')['A'] == 'b'


def test_validation_is_timed_beside_training():
    from imgstudy.gpu import Bench, validation
    row = validation(Bench(cpu=True), 'lenet5')
    assert 0 < row['valid_us'] and row['valid_over_train'] == pytest.approx(row['valid_us']/row['train_us'], abs=1e-3)


def test_the_seconds_of_all_epochs_are_added_up(tmp_path, monkeypatch):
    "Those of a finished training, of a paused one, and of the members of a paused stack."
    from imgstudy.gpu import seconds_trained
    from imgstudy.study.create import create_run
    from imgstudy.training.checkpoint import Checkpoint, write_checkpoint
    from imgstudy.training.train import train
    from imgstudy.training.train_stacked import train_stacked
    from kills import Kill, Killed, kill_after
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    quick = dict(dataset='digits', model='lenet5', epochs=2, subset=100, bs=20, augment='none')
    whole = train(create_run(**quick), root=tmp_path)
    assert seconds_trained(tmp_path) == pytest.approx(whole.history.seconds.sum(), abs=1e-3)
    before = seconds_trained(tmp_path)
    kill_after(1, monkeypatch, lambda: train(create_run(**quick, seed=1), root=tmp_path))
    one = seconds_trained(tmp_path)
    assert one > before
    monkeypatch.setattr('imgstudy.training.train_stacked.event_cbs', lambda *args, **kwargs: [Kill(1)])
    with pytest.raises(Killed): train_stacked([create_run(**quick, seed=s) for s in (2, 3)], root=tmp_path)
    assert seconds_trained(tmp_path) > one


@pytest.fixture
def an_hour_in_a_moment(monkeypatch):
    "A made-up clock; `imgstudy run` imports for 38 s, trains until 30 s before its limit, and keeps a paused training and a stack of two."
    from types import SimpleNamespace
    from imgstudy import gpu as module
    from imgstudy.training.checkpoint import write_checkpoint
    now, asked = [1e9], []
    def run(call, env, **kwargs):
        asked.append(call[call.index('--time-limit') + 1])
        trained = (limit := int(asked[-1][:-1])) - 38 - 30
        half, root = [dict(seconds=trained/4)]*2, Path(env['IMGSTUDY_RUNS'])
        write_checkpoint(dict(callbacks=dict(history=dict(rows=half))), root/'.a.checkpoint')
        write_checkpoint(dict(callbacks=dict(stacked_history=dict(progress=[dict(rows=half[:1])]*2))), root/'.stack-b.checkpoint')
        now[0] += limit - 20
        return SimpleNamespace(stderr='', stdout='')
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=lambda: now[0], perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, 'subprocess', SimpleNamespace(run=run))
    return now, asked


@pytest.mark.parametrize('left, limit, share', [(600, 540, .874), (1e6, 540, .874), (330, 315, .784), (float('inf'), 540, .874)])
def test_the_share_is_that_of_nine_minutes_if_there_is_time_for_them(left, limit, share, an_hour_in_a_moment):
    from imgstudy.gpu import Bench, share_of_limit
    now, asked = an_hour_in_a_moment
    bench = Bench(cpu=True, deadline=now[0] + left)
    assert share_of_limit(bench) == dict(limit=limit, took=limit - 20., trained=limit - 68., share=share) and asked == [f'{limit}s']


@pytest.mark.parametrize('minutes, measured', [(4, False), (5, False), (10, True)])
def test_a_default_run_lists_the_share_and_ten_minutes_measure_it(minutes, measured, an_hour_in_a_moment):
    from imgstudy.gpu import measure_gpu
    record = measure_gpu(60*minutes, only='share', cpu=True)
    assert record['no_time'] == ([] if measured else ['share of a time limit'])
    assert [r.get('share', 0) > .8 for r in record['rows']] == [True]*measured


def test_a_sweep_that_trained_nothing_says_why(an_hour_in_a_moment, monkeypatch):
    from types import SimpleNamespace
    from imgstudy import gpu as module
    monkeypatch.setattr(module, 'subprocess', SimpleNamespace(run=lambda *args, **kwargs: SimpleNamespace(stderr='imgstudy: no data', stdout='')))
    row = module.share_of_limit(module.Bench(cpu=True))
    assert row['why'] == 'imgstudy: no data' and row['trained'] == 0 and 'share' not in row


@pytest.mark.parametrize('model', ['lenet5', 'cnn3', 'resnet9', 'convnext_tiny at 224', 'vit_small at 224'])
def test_every_peer_has_a_row_for_every_network_that_is_compared(model):
    from imgstudy.gpu import gpu_rows
    from imgstudy.peers import peers
    names = [r.name for r in gpu_rows()]
    assert len(set(names)) == len(names) and {f'{p}, {model}' for p in peers} <= {*names}


def test_of_the_large_networks_one_peer_comes_early_and_the_others_last():
    from imgstudy.gpu import gpu_rows
    names, large = [r.name for r in gpu_rows()], [r.name for r in gpu_rows('6')]
    assert names[-2 - 8:-2] == large[-8:] and names[-2:] == ['share of a time limit', 'CUDA tests'] and len(large) == 12
    assert large[:4] == [f'{p}{m} at 224' for m in ('convnext_tiny', 'vit_small') for p in ('', 'fastai_fp16, ')]


@pytest.mark.parametrize('peer', ['pytorch', 'timm_loader'])
def test_a_peer_of_a_large_network_is_measured(peer):
    from imgstudy.gpu import Bench, gpu_rows
    row, = [r for r in gpu_rows('6') if r.name == f'{peer}, vit_small at 224']
    got = row.measure(Bench(cpu=True))
    assert got['ours_over_peer'] > 0 and got['peer'] == peer
