"Many runs and everything that can befall them: other sweeps, kills, full disks, a limit, a cluster, missing weights."
import errno, json, multiprocessing, os, signal, sys, threading, time
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
import numpy as np, nbformat, pandas as pd, psutil, pytest, torch
from fastai.basics import Learner
from safetensors.torch import load_file
from imgstudy import cli
from imgstudy.study import estimate
from imgstudy.sweep import needs, workers
from imgstudy.core import StudyError
from imgstudy.records.record import read_record, verify_record
from imgstudy.runs import run_id
from imgstudy.sweep.claims import Claim, claimed_by
from imgstudy.sweep.states import run_states
from imgstudy.sweep.workers import attempt, backends, run_notebook, work
from imgstudy.sweep.sweep import sweep
from imgstudy.training.train import train
from imgstudy.study.create import create_run
from imgstudy.study.estimate import Speed, epoch_key

quick = dict(dataset='digits', model='lenet5', subset=60, epochs=1, augment='none', precision='fp32', bs=20, size=16)


def runs_of(n, **params): return [create_run(**quick | params, seed=s) for s in range(n)]


def log(root, *words): # one write, so that several processes can share the file
    with open(Path(root)/'log', 'a') as f: f.write(' '.join(map(str, words)) + '\n')


def logged(root): return [line.split() for line in (Path(root)/'log').read_text().splitlines()] if (Path(root)/'log').exists() else []


def wait_for(what, seconds=180):
    end = time.time() + seconds
    while not (got := what()) and time.time() < end: time.sleep(0.05)
    assert got, 'it did not happen in time'
    return got


def counted(run, root): # a runner: `train`, and a line in the log before and after
    log(root, 'start', run_id(run), os.getpid())
    train(run, root=root)
    log(root, 'end', run_id(run), os.getpid())


@pytest.fixture
def here(monkeypatch):
    "A backend in this process: what a sweep does, without the seconds that a new process takes."
    def one_after_another(todo, plan, **_):
        for run, need in todo: yield attempt(run, need, plan, work)
    monkeypatch.setitem(backends, 'here', one_after_another)
    return 'here'


# what is trained, and what is not

def test_each_run_ends_in_its_own_way(tmp_path, here, capsys):
    "A source comes first, a failure stops nothing, missing weights and images are listed, finished runs are skipped."
    good, other = runs_of(2)
    after = replace(good, init=f'run:{run_id(good)}')
    bad, after_bad = create_run(**quick | dict(lr=1e30)), None
    after_bad = replace(good, init=f'run:{run_id(bad)}')
    no_file, no_data = replace(good, init=f'file:{tmp_path}/lenet.pth'), replace(good, dataset=f'folder:{tmp_path}/photos')
    runs = [after, after_bad, no_file, bad, no_data, good, other, good]
    states = sweep(runs, tmp_path, backend=here, runner=counted).set_index('id')
    assert [states.state[run_id(r)] for r in runs[:7]] == ['done', 'blocked', 'blocked', 'failed', 'blocked', 'done', 'done'] and len(states) == 7
    assert states.reason[run_id(no_file)] == f'weights: {tmp_path}/lenet.pth'
    assert states.reason[run_id(no_data)] == f'data: there is no folder {tmp_path}/photos'
    assert 'which failed: Diverged: The loss became' in states.reason[run_id(after_bad)]
    assert [id for word, id, _ in logged(tmp_path) if word == 'start'] == [run_id(r) for r in (bad, good, other, after)]
    said = capsys.readouterr().out
    assert sum(line.startswith('[') for line in said.splitlines()) == 4 and '7 runs: 3 done, 3 blocked, 1 failed.' in said
    assert f'{run_id(no_file)} blocked: weights: {tmp_path}/lenet.pth' in said
    for path in ('.failed', '.running'): assert [p.name for p in (tmp_path/path).iterdir()] == ([f'{run_id(bad)}.log'] if path == '.failed' else [])
    assert list((tmp_path/'.claims').iterdir()) == []
    sweep(runs, tmp_path, backend=here, runner=counted)
    assert Counter(id for word, id, _ in logged(tmp_path) if word == 'start') == {run_id(r): 1 for r in (good, other, after)} | {run_id(bad): 2}
    sweep(runs, tmp_path, backend=here, runner=counted, retry=False)
    assert sum(id == run_id(bad) for _, id, _ in logged(tmp_path)) == 2


def test_no_network_blocks_what_needs_it(tmp_path, here, monkeypatch):
    "Weights that only the hub has: the file to supply is named, at once, and the host is asked once; the rest runs."
    asked = []
    def closed(request, timeout): asked.append(request.full_url); raise OSError('Network is unreachable')
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path/'data'))
    monkeypatch.setattr(needs, 'urlopen', closed)
    monkeypatch.setattr('imgstudy.models.weights.try_to_load_from_cache', lambda *args: None)
    needs.answers.cache_clear()
    runs = [create_run(**quick | dict(model=m, size=32, init='imagenet')) for m in ('resnet18', 'mobilenetv3_s')] + runs_of(1)
    states = sweep(runs, tmp_path/'runs', backend=here, runner=counted)
    needs.answers.cache_clear()
    assert states.state.tolist() == ['blocked', 'blocked', 'done'] and len(asked) == 1
    assert all(r.startswith('weights: ') and 'download model.safetensors of https://huggingface.co/timm/' in r and
               f' and save it as {tmp_path}/data/weights/' in r for r in states.reason[:2])


def test_a_full_disk_stops_the_sweep(tmp_path, here):
    "The second run cannot write its weights: nothing of it is left, and the third does not start."
    first, second, third = runs = runs_of(3)
    def fills_up(run, root):
        with pytest.MonkeyPatch.context() as m:
            def full(*args): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if run == second: m.setattr('imgstudy.records.record.save_file', full)
            counted(run, root)
    with pytest.raises(StudyError, match='is full .* Make room'): sweep(runs, tmp_path, backend=here, runner=fills_up)
    assert run_states(runs, tmp_path).state.tolist() == ['done', 'left', 'left']
    assert [p.name for p in tmp_path.iterdir() if p.is_dir() and not p.name.startswith('.')] == [run_id(first)]
    assert not list(tmp_path.glob('.*.part')) and not list((tmp_path/'.claims').iterdir())
    assert sweep(runs, tmp_path, backend=here, runner=counted).state.tolist() == ['done']*3


class Paused(StudyError): "As `train` raises it."


def speed_of(seconds): # run -> seconds of one of its epochs
    speed = Speed()
    speed.known = {epoch_key(run): (s, 0.) for run, s in seconds.items()}
    return speed


def alike(*bs): return [create_run(**quick | dict(bs=n)) for n in bs] # each takes its own time


def test_the_time_limit(tmp_path, here, capsys):
    "A run whose measured epoch does not fit is not started; one that pauses is left; the deadline is before the limit."
    long, short = alike(10, 20)
    def pauses(run, root): log(root, run_id(run)); raise Paused('stopped after epoch 3')
    speed = speed_of({long: 900., short: 2.})
    states = sweep([long, short], tmp_path, backend=here, runner=pauses, time_limit='1m', speed=speed)
    assert logged(tmp_path) == [[run_id(short)]] and states.state.tolist() == ['left', 'left']
    said = capsys.readouterr().out
    assert 'paused, 0 s: stopped after epoch 3' in said and 'goes on with what is left' in said and 'raise it' not in said
    assert f'Not started before the time limit: {run_id(long)}.' in said
    sweep([long], tmp_path, backend=here, runner=pauses, time_limit='1m', speed=speed)
    assert 'too short for an epoch' in capsys.readouterr().out


def test_a_guess_starts_what_comes_to_nothing(tmp_path, here, capsys, monkeypatch):
    "Hours for an epoch, but only guessed: it starts, shortest first, and what the first one took is known for its like."
    monkeypatch.setattr(estimate, 'guess_seconds', lambda run, epochs=None, device=None: 1e5 - run.recipe.bs)
    runs = alike(10, 20, 30)
    sweep(runs, tmp_path, backend=here, runner=counted, time_limit='1m')
    assert [id for word, id, _ in logged(tmp_path) if word == 'start'] == [run_id(r) for r in runs[::-1]]
    speed = Speed()
    for r in runs: speed.add(read_record(tmp_path/run_id(r)))
    assert all(0 < speed.epoch(r) < 30 for r in runs)
    assert 'Not started' not in capsys.readouterr().out
    over = create_run(**quick | dict(bs=40))
    def waits(run, root): time.sleep(3)
    sweep([*alike(50), over], tmp_path, backend=here, runner=waits, time_limit=3)
    said = capsys.readouterr().out
    assert f'Not started before the time limit: {run_id(over)}.' in said and 'too short' not in said


def test_another_models_record_says_nothing(tmp_path):
    "What kept a sweep from beginning: minutes for an epoch of 60 digits, and a CNN on CIFAR-10 under a limit of 80 s."
    (slow,) = runs_of(1)
    record = train(slow, root=tmp_path)
    speed = Speed([replace(record, history=record.history.assign(seconds=100.))])
    asked = create_run(dataset='cifar10', model='cnn3')
    assert speed.epoch(slow) == 100 and speed.epoch(asked) is None and speed.seconds(asked) == estimate.guess_seconds(asked)
    assert speed.epoch(replace(slow, seed=3)) == 100 and speed.epoch(replace(slow, subset=None)) is None


def test_what_only_asks_trains_nothing(tmp_path, monkeypatch, capsys):
    def never(*args, **kwargs): raise AssertionError('this trains')
    for of, name in ((Learner, '__init__'), (Learner, 'fit'), (torch.Tensor, 'backward'), (workers.Workers, 'pool')):
        monkeypatch.setattr(of, name, never)
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache')) # else times of earlier trainings are known
    cli.run('cifar10_cnn_batch_lr', scale='full', time_limit='80s', dry_run=True, root=str(tmp_path/'runs'))
    cli.status('cifar10_cnn_batch_lr', root=str(tmp_path/'runs'))
    cli.compare('digits', 'lenet5', dry_run=True, root=str(tmp_path/'runs'))
    assert 'a rough guess' in capsys.readouterr().out
    as_one = dict(auto=torch.cuda.is_available(), always=True, never=False)
    for study, stack in product(('cifar10_cnn_batch_lr', 'cats_dogs_optimizers'), as_one):
        cli.plan(study, scale='full', stack=stack, json=True, root=str(tmp_path/'runs'))
        units = json.loads(capsys.readouterr().out)
        assert all(u['seconds'] > 0 and u['state'] in ('left', 'blocked') and not u['measured'] for u in units)
        assert any(len(u['runs']) > 1 for u in units) is as_one[stack], (study, stack)
    assert not (tmp_path/'runs').exists()


def sleeps(run, root):
    log(root, os.environ['IMGSTUDY_DEADLINE'], os.getpid())
    time.sleep(600)


@pytest.mark.slow # a new process must have started well before the limit
def test_what_runs_at_the_limit_is_stopped(tmp_path):
    start, limit = time.time(), 60
    states = sweep(runs_of(3), tmp_path, jobs=2, runner=sleeps, time_limit=limit)
    assert time.time() - start < limit + 2 and set(states.state) == {'left'}
    assert len(logged(tmp_path)) == 2
    for deadline, pid in logged(tmp_path):
        assert start + limit - 7 < float(deadline) < start + limit - 5
        wait_for(lambda: not psutil.pid_exists(int(pid)), 30)


def test_a_paused_run_goes_on(tmp_path, here):
    "Epochs of half a second, and time for some of them; then the others, and no other."
    (run,) = runs = runs_of(1, epochs=18)
    def slowly(run, root):
        with pytest.MonkeyPatch.context() as m:
            m.setattr('imgstudy.training.fit.History.before_train', lambda self: (log(root, 'epoch'), time.sleep(.5)), raising=False)
            if not (Path(root)/'log').exists(): m.setenv('IMGSTUDY_DEADLINE', str(time.time() + 8))
            train(run, root=root)
    (state,) = sweep(runs, tmp_path, backend=here, runner=slowly).itertuples()
    assert (state.state, state.reason) == ('paused', f'goes on after epoch {state.epochs}') and 0 < state.epochs < 18
    assert sweep(runs, tmp_path, backend=here, runner=slowly).state.tolist() == ['done']
    assert len(logged(tmp_path)) == 18 and len(read_record(tmp_path/run_id(run)).history) == 18


# claims

def stale(root, id, **changed): # what a process that was killed leaves behind
    with Claim(root, id) as mine: said = json.loads(next((Path(root)/'.claims').glob(f'{id}.*')).read_text())
    (Path(root)/f'.claims/{id}.1.json').write_text(json.dumps(said | dict(pid=2**22 + 5) | changed))


def contend(root, ids, gate, held, won):
    claims = [Claim(root, id) for id in ids]
    gate.wait()
    won.put([id for id, c in zip(ids, claims) if c.__enter__()])
    held.wait() # none lets go before all have tried
    for c in claims: c.__exit__()


@pytest.mark.parametrize('left', [False, True], ids=['free', 'stale'])
def test_eight_processes_claim_the_same_runs(left, tmp_path):
    "Each is won at most once, whether it was free or a claim of a dead process is taken over; and is free again afterwards."
    ids, fork = [f'run-{i:02}' for i in range(40)], multiprocessing.get_context('fork')
    if left: [stale(tmp_path, id) for id in ids]
    gate, held, won = fork.Barrier(8), fork.Barrier(8), fork.Queue()
    processes = [fork.Process(target=contend, args=(tmp_path, ids, gate, held, won)) for _ in range(8)]
    for p in processes: p.start()
    winners = Counter(id for _ in processes for id in won.get(timeout=60))
    for p in processes: p.join()
    assert set(winners.values()) == {1} and len(winners) > 30, 'two that meet may both withdraw, and try again'
    for id in ids:
        with Claim(tmp_path, id) as mine: assert mine
    assert not list((tmp_path/'.claims').iterdir())


def test_leases(tmp_path):
    "A process elsewhere is believed as long as it renews; a thread renews; who lost a claim does not release it."
    (run,), id = runs_of(1), run_id(runs_of(1)[0])
    stale(tmp_path, id, machine='elsewhere', host='elsewhere')
    (state,) = run_states([run], tmp_path).itertuples()
    assert state.state == 'running' and state.reason.startswith('elsewhere, process')
    with Claim(tmp_path, id) as mine: assert not mine
    with Claim(tmp_path, id, lease=0.) as mine: assert mine
    with Claim(tmp_path, id, lease=1.) as mine:
        time.sleep(1.5)
        assert mine and claimed_by(tmp_path, id, lease=1.)['pid'] == os.getpid()
    slept = Claim(tmp_path, id)
    slept.renew = lambda: None
    with slept:
        time.sleep(0.05)
        with Claim(tmp_path, id, lease=0.01) as mine:
            assert mine and slept.lost
            slept.__exit__()
            assert claimed_by(tmp_path, id)


# processes

def sweep_apart(root, n, epochs, said, **kwargs):
    os.setpgrp() # Ctrl-C reaches the sweep alone
    signal.signal(signal.SIGINT, signal.default_int_handler) # a shell's background job is started with it ignored
    sys.stdout = open(said, 'w', buffering=1)
    print('states', *sweep(runs_of(n, epochs=epochs), root, runner=counted, **kwargs).state)


def start(root, n, said='said', epochs=1, **kwargs): # a sweep in a process of its own
    process = multiprocessing.get_context('fork').Process(target=sweep_apart, args=(root, n, epochs, Path(root)/said), kwargs=kwargs)
    process.start()
    return process


def test_two_sweeps_of_the_same_runs(tmp_path):
    "Both end when all is done; each run was trained once, and every record is whole."
    sweeps = [start(tmp_path, 4, said=f'said{i}') for i in range(2)]
    for i, process in enumerate(sweeps):
        process.join()
        assert 'states done done done done' in (tmp_path/f'said{i}').read_text()
    assert Counter((word, id) for word, id, _ in logged(tmp_path)) == {(w, run_id(r)): 1 for w in ('start', 'end') for r in runs_of(4)}
    for r in runs_of(4): verify_record(read_record(tmp_path/run_id(r)))
    assert not list((tmp_path/'.claims').iterdir())


@pytest.mark.parametrize('sign, jobs', [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow)])
def test_interrupted(sign, jobs, tmp_path):
    "The workers end, the claims are released, and a sentence says how to go on."
    process = start(tmp_path, 3, jobs=jobs, epochs=5000)
    started = wait_for(lambda: len(got := logged(tmp_path)) == jobs and got)
    os.kill(process.pid, sign)
    process.join(60)
    assert process.exitcode and 'Interrupted. The same sweep, started again, goes on with what is left.' in (tmp_path/'said').read_text()
    wait_for(lambda: not any(psutil.pid_exists(int(pid)) for *_, pid in started), 30)
    assert not list((tmp_path/'.claims').iterdir()) and not list(tmp_path.glob('*/record.json'))


def test_a_killed_sweep_takes_its_workers_along(tmp_path):
    "Then its claim is stale at once, and another may have the run."
    process = start(tmp_path, 1, epochs=5000)
    (_, id, pid), = wait_for(lambda: logged(tmp_path))
    assert claimed_by(tmp_path, id)['pid'] == process.pid
    process.kill()
    process.join()
    assert claimed_by(tmp_path, id) is None
    wait_for(lambda: not psutil.pid_exists(int(pid)), 30)


def killed(run, root):
    if run.seed == 1: os.kill(os.getpid(), signal.SIGKILL)
    counted(run, root)


@pytest.mark.slow # the notebook shows the same
def test_a_run_that_is_killed_stops_nothing(tmp_path):
    states = sweep(runs_of(3), tmp_path, runner=killed)
    assert states.state.tolist() == ['done', 'failed', 'done'] and 'no memory was left' in states.reason[1]


kept = []


def grows(run, root): # by more than what loky takes for a leak
    log(root, 'start', run_id(run), os.getpid(), os.environ.get('IMGSTUDY_GPU_MEMORY'), workers._images is not None)
    workers.run_plain(run, root)
    kept.append(np.ones(50_000_000)) # 400 MB
    time.sleep(1.1)


def test_a_worker_lives_as_long_as_its_sweep(tmp_path, monkeypatch):
    "One process for runs trained as one and for those trained alone, also if it grows; it keeps the images of its last run."
    made, create = [], workers.ProcessPoolExecutor
    monkeypatch.setattr(workers, 'ProcessPoolExecutor', lambda *args, **kwargs: made.append(1) or create(*args, **kwargs))
    runs = [*runs_of(2), *alike(7, 8, 9)]
    states = sweep(runs, tmp_path, runner=grows, stack='always', gpu_memory=.5)
    assert set(states.state) == {'done'} and len(made) == 1
    assert [read_record(tmp_path/run_id(r)).info['model'].get('stacked') for r in runs] == [2, 2, None, None, None]
    _, _, pids, shares, images = zip(*logged(tmp_path))
    assert len(set(pids)) == 1 and set(shares) == {'0.5'} and images == ('False', 'True', 'True')


def test_only_a_worker_keeps_images():
    (run,) = runs_of(1)
    assert workers.images_of(run) is None and workers._images is None


def test_a_kernel_has_the_share_of_its_worker(tmp_path, monkeypatch):
    (run,) = runs_of(1)
    cells = [nbformat.v4.new_code_cell('seeds = 1', metadata=dict(tags=['parameters'])),
             nbformat.v4.new_code_cell("import sys; assert 'torch' in sys.modules")]
    spec = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'), language_info=dict(name='python'))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path/'asks.ipynb')
    monkeypatch.setattr(workers, 'study_notebook', lambda: tmp_path/'asks.ipynb')
    monkeypatch.setenv('IMGSTUDY_GPU_MEMORY', '0.5')
    (tmp_path/run_id(run)).mkdir()
    run_notebook(run, tmp_path)
    assert (tmp_path/run_id(run)/'run_study.ipynb').exists()


# Dask

def waits_for_go(run, root): # a runner that is in the middle of its run until the test lets it go on
    log(root, 'start', run_id(run), os.getpid())
    wait_for((Path(root)/'go').exists)
    train(run, root=root)
    log(root, 'end', run_id(run), os.getpid())


def test_dask_survives_a_killed_worker(tmp_path):
    pytest.importorskip('distributed', reason="needs pip install 'imgstudy[dask]'")
    "Two worker processes on loopback, one killed in the middle of a run: that run starts again, no other does, and each ends once."
    from distributed import LocalCluster
    runs, seen = runs_of(5), []
    def kill_one():
        try:
            seen.extend(wait_for(lambda: len(got := logged(tmp_path)) == 2 and got))
            os.kill(int(seen[0][2]), signal.SIGKILL)
        finally: (tmp_path/'go').touch()
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host='127.0.0.1', dashboard_address=None) as cluster:
        killer = threading.Thread(target=kill_one)
        killer.start()
        states = sweep(runs, tmp_path, backend='dask', scheduler=cluster.scheduler_address, runner=waits_for_go)
        killer.join()
    assert states.state.tolist() == ['done']*5 and seen[0][2] != seen[1][2]
    starts = Counter(id for word, id, _ in logged(tmp_path) if word == 'start')
    assert starts == {run_id(r): 1 for r in runs} | {seen[0][1]: 2}
    assert Counter(id for word, id, _ in logged(tmp_path) if word == 'end') == {run_id(r): 1 for r in runs}
    for r in runs: verify_record(read_record(tmp_path/run_id(r)))


def test_no_scheduler(tmp_path, monkeypatch):
    pytest.importorskip('distributed', reason="needs pip install 'imgstudy[dask]'")
    with pytest.raises(StudyError, match='No Dask scheduler answers at tcp://127.0.0.1:9'):
        sweep(runs_of(1), tmp_path, backend='dask', scheduler='tcp://127.0.0.1:9')


# the notebook

def same(a, b): # two records of the same run but for time and place
    said = []
    for path in (a, b):
        d = json.loads((path/'record.json').read_text())
        for k in ('created', 'cost', 'seal'): d.pop(k)
        d['environment'].pop('commit')
        said.append(d)
    assert said[0] == said[1]
    ra, rb = read_record(a), read_record(b)
    assert ra.history.drop(columns='seconds').equals(rb.history.drop(columns='seconds'))
    assert all(np.array_equal(ra.predictions[k], rb.predictions[k]) for k in ra.predictions)
    wa, wb = (load_file(p/'weights.safetensors') for p in (a, b))
    assert all(wa[k].equal(wb[k]) for k in wa)


def test_a_notebook_and_none_leave_the_same_record(tmp_path):
    "But for time and place; the executed notebook lies in the record's folder."
    (run,) = runs_of(1, subset=200, epochs=2)
    for name, notebook in (('with', True), ('without', False)):
        assert sweep([run], tmp_path/name, notebook=notebook).state.tolist() == ['done']
    same(tmp_path/'with'/run_id(run), tmp_path/'without'/run_id(run))
    files = {name: {p.name for p in (tmp_path/name/run_id(run)).iterdir()} for name in ('with', 'without')}
    assert files['with'] - files['without'] == {'run_study.ipynb'} and files['without'] < files['with']
    executed = nbformat.read(tmp_path/'with'/run_id(run)/'run_study.ipynb', 4)
    assert all(c.execution_count for c in executed.cells if c.cell_type == 'code')


def test_a_kernel_that_dies_is_a_failed_run(tmp_path, monkeypatch):
    (run,) = runs_of(1)
    cells = [nbformat.v4.new_code_cell('seeds = 1', metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell('import os; os._exit(1)')]
    spec = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'), language_info=dict(name='python'))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), tmp_path/'dies.ipynb')
    monkeypatch.setattr(workers, 'study_notebook', lambda: tmp_path/'dies.ipynb')
    monkeypatch.setitem(backends, 'here', lambda todo, plan, **_: (attempt(run, need, plan, work) for run, need in todo))
    (state,) = sweep([run], tmp_path/'runs', backend='here').itertuples()
    assert state.state == 'failed' and state.reason.startswith('The kernel of its notebook died: most often, no memory was left.')
    assert {p.suffix for p in (tmp_path/'runs/.failed').iterdir()} == {'.ipynb', '.log'}


def test_one_reason_is_said_once():
    "Eighteen runs that lack the same images are one line, which names the first of them."
    from imgstudy.sweep.sweep import summary
    kinds = [('done', '')] + [('blocked', 'data: put it there')]*18 + [('blocked', 'weights: w.pth'), ('failed', 'data: put it there')]
    states = pd.DataFrame([(f'r{i}', *kind) for i, kind in enumerate(kinds)], columns=['id', 'state', 'reason'])
    assert summary(states).splitlines()[1:] == ['  r1 and 17 more blocked: data: put it there', '  r19 blocked: weights: w.pth',
                                                '  r20 failed: data: put it there']
