"A training that is killed, stopped or short of memory or disk goes on, and ends with the bits of one that was left alone."
import errno, multiprocessing, os, random, subprocess, sys, time, types
from dataclasses import replace
from functools import partial
import numpy as np, pytest, torch
from imgstudy.records import record as writing
from imgstudy.training import train as training
from imgstudy.training.checkpoint import Checkpoint, DiskFull, Paused, checkpoint_file, deadline, has_checkpoint
from imgstudy.core import StudyError
from imgstudy.training.energy import EnergyCounter, EnergyMeter
from imgstudy.records.record import is_finished, read_record, verify_record
from imgstudy.runs import run_id, run_to_dict
from imgstudy.training.train import predict_test, train, train_all
from imgstudy.training.train_stacked import kept_stacks, stack_id, train_stacked
from imgstudy.study.create import create_run
from safetensors.torch import load_file

quick = dict(dataset='digits', model='lenet5', subset=200, epochs=5)
many = dict( # what has a memory, together
    averaged=dict(augment='standard', ema=0.9, model='lenet5_bn'),
    mixed=dict(model='cnn3', size=16, subset=100, mixup=0.4, patience=2, dropout=0.3, schedule='exponential', gamma=0.5),
    frozen=dict(init='run', frozen_epochs=2, epochs=4, layer_decay=0.5, clip=1.))


def piece(run, root, die=None): # one process: trains until it is killed
    "`die`: kill at the n-th fsync (a checkpoint is half done), or before the test."
    sys.stdout = open(os.devnull, 'w')
    Checkpoint.every, kill, left = 0., lambda *args: os.kill(os.getpid(), 9), [die]
    def fsync(fd, real=os.fsync):
        left[0] -= 1
        return real(fd) if left[0] else kill()
    if isinstance(die, int): os.fsync = fsync
    if die == 'test': training.predict_test = kill
    if die == 'record': training.write_record = kill
    if die == 'in record': writing.save_file = kill # its folder is half full
    train(run, root=root)


@pytest.fixture(scope='module')
def start():
    "Start a piece: forked from a server that has imported everything and done nothing, so that it costs no seconds."
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['imgstudy.training.train'])
    def start(*args):
        process = context.Process(target=piece, args=args)
        process.start()
        return process
    return start


def kill_at_random(run, root, start, kills, rng):
    """Kill the training of `run` some times, each a random while after it has kept an epoch or begun; then let it end.
    A kill that came too late on a fast machine does not count, and the last one leaves something to continue."""
    file, deaths = checkpoint_file(run, root), 0
    for n in range(10*kills):
        if deaths >= kills and file.exists(): break
        process, before = start(run, root), file.stat().st_mtime_ns if file.exists() else 0
        while n and process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before): time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2 if n else 1.5))
        process.kill()
        process.join()
        deaths += process.exitcode == -9
    end(start(run, root))
    return deaths


def end(process):
    process.join()
    assert process.exitcode == 0


def assert_same(a, b): # folders of records
    "Everything but the seconds, the pieces and the time of writing, to the bit."
    a, b = map(read_record, (a, b))
    assert (a.path/'weights.safetensors').read_bytes() == (b.path/'weights.safetensors').read_bytes()
    assert a.predictions.keys() == b.predictions.keys()
    assert all(np.array_equal(a.predictions[k], b.predictions[k]) for k in a.predictions)
    assert a.metrics == b.metrics and a.history.drop(columns='seconds').equals(b.history.drop(columns='seconds'))
    assert all(a.info[k] == b.info[k] for k in ('data', 'init', 'model', 'best_epoch'))
    verify_record(a)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "A record to start from."
    return train(create_run(dataset='digits_low', model='lenet5', epochs=1, subset=100), root=tmp_path_factory.mktemp('source')).path


def made(name, source):
    params = {**quick, **many[name]}
    return create_run(**{**params, **(dict(init=f'run:{source}', dataset='digits_high') if 'init' in params else {})})


@pytest.mark.parametrize('name', many)
def test_killed_at_random_moments(name, source, start, tmp_path):
    run = made(name, source)
    end(start(run, tmp_path/'whole'))
    deaths = kill_at_random(run, tmp_path/'pieces', start, 3, random.Random(name))
    assert_same(tmp_path/'whole'/run_id(run), tmp_path/'pieces'/run_id(run))
    cost = read_record(tmp_path/'pieces'/run_id(run)).info['cost']
    assert deaths >= 2 and cost['resumed'], 'it was interrupted, and after an epoch'
    assert list(cost['resumed']) == sorted(cost['resumed']) and cost['seconds'] > cost['fit_seconds'] > 0
    assert sorted(p.name for p in (tmp_path/'pieces').iterdir()) == [run_id(run)], 'nothing is left over'


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(10))
@pytest.mark.parametrize('name', many)
def test_killed_more_often(name, seed, source, start, tmp_path):
    run = made(name, source)
    end(start(run, tmp_path/'whole'))
    kill_at_random(run, tmp_path/'pieces', start, 12, random.Random(f'{name}{seed}'))
    assert_same(tmp_path/'whole'/run_id(run), tmp_path/'pieces'/run_id(run))


def test_killed_where_it_hurts(start, tmp_path):
    "While a checkpoint is half written, between training and test, and between test and record."
    run = create_run(**{**quick, 'patience': 1, 'epochs': 4, 'mixup': 0.2, 'schedule': 'exponential', 'gamma': 0.01})
    end(start(run, tmp_path/'whole'))
    for die, kept in [(1, None), (3, 2), ('test', None), ('record', None)]:
        process = start(run, tmp_path, die)
        process.join()
        assert process.exitcode == -9 and not is_finished(tmp_path/run_id(run))
        if isinstance(die, int): assert has_checkpoint(run, tmp_path) == kept
    assert any(p.suffix == '.part' for p in tmp_path.iterdir())
    process = start(run, tmp_path, 'in record')
    process.join()
    assert process.exitcode == -9 and any(p.suffix == '.part' and p.is_dir() for p in tmp_path.iterdir())
    end(start(run, tmp_path))
    assert_same(tmp_path/'whole'/run_id(run), tmp_path/run_id(run))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([run_id(run), 'whole'])


def test_joules_of_all_pieces_add_up(tmp_path, monkeypatch):
    "A machine that takes one watt counts as many joules as seconds; a piece that was not counted leaves no sum."
    watt, none = [EnergyCounter('one watt', time.perf_counter)], []
    def interrupted(run, *pieces):
        for n, counters in enumerate(pieces):
            monkeypatch.setattr('imgstudy.training.checkpoint.EnergyMeter', partial(EnergyMeter, counters=counters))
            monkeypatch.setattr(training, 'predict_test', predict_test if n == len(pieces) - 1 else lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            try: record = train(run, root=tmp_path)
            except KeyboardInterrupt: pass
        return read_record(record.path).info['cost']
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    cost = interrupted(create_run(**quick), watt, watt)
    assert cost['resumed'] == [5] and cost['fit_seconds'] < cost['joules'] < cost['seconds'] and cost['counters'] == ['one watt']
    for seed, pieces in enumerate([(none, watt), (watt, none)], 1):
        assert interrupted(create_run(**quick, seed=seed), *pieces)['joules'] is None


# other images, another PyTorch, other files

def test_a_checkpoint_of_other_images_is_not_continued(tmp_path, monkeypatch, capsys):
    from PIL import Image
    def photos(shade):
        for c in 'ab':
            (tmp_path/'photos'/c).mkdir(parents=True, exist_ok=True)
            for i in range(20): Image.new('L', (16, 16), shade + 5*i).save(tmp_path/'photos'/c/f'{i}.png')
    photos(0)
    run = replace(create_run(dataset='digits', model='lenet5', size=16, epochs=3), dataset=f'folder:{tmp_path}/photos') # by its path
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    monkeypatch.setattr(training, 'predict_test', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): train(run, root=tmp_path/'runs')
    monkeypatch.undo()
    assert has_checkpoint(run_id(run), tmp_path/'runs') == 3
    photos(100)
    record = train(run, root=tmp_path/'runs')
    assert 'checkpoint after epoch 3 is not used: images was' in capsys.readouterr().out and record.info['cost']['resumed'] == []


def test_a_damaged_checkpoint_is_not_used(tmp_path, capsys):
    run = create_run(**{**quick, 'epochs': 1})
    for junk in (b'', b'PK junk', b'x'*5000):
        checkpoint_file(run, tmp_path).write_bytes(junk)
        assert train(run, root=tmp_path).info['cost']['resumed'] == [] and 'is damaged or of another version' in capsys.readouterr().out
    torch.save(dict(setting={}, epoch=1, evil=os.system), checkpoint_file(run, tmp_path)) # code, which is not loaded
    assert has_checkpoint(run, tmp_path) is None


def kept_in_format_1(tmp_path, name, **setting):
    "A file as an earlier version left it: another layout, another format, and nothing that the present one could restore."
    file = checkpoint_file(name, tmp_path)
    torch.save(dict(setting=dict(format=1, **setting), epoch=2, callbacks=dict(history=dict(gone=[]))), file)
    return file

def test_a_checkpoint_of_format_1_begins_again(tmp_path, capsys):
    run = create_run(**{**quick, 'epochs': 1})
    kept_in_format_1(tmp_path, run_id(run))
    assert train(run, root=tmp_path).info['cost']['resumed'] == []
    (line,) = [l for l in capsys.readouterr().out.splitlines() if 'not used' in l]
    assert line.startswith('The checkpoint after epoch 2 is not used:') and 'format was 1, now 3' in line

def test_a_checkpoint_with_a_class_that_is_gone_begins_again(tmp_path, monkeypatch, capsys):
    run, module = create_run(**{**quick, 'epochs': 1}), types.ModuleType('imgstudy.gone')
    module.Gone = type('Gone', (), dict(__module__='imgstudy.gone'))
    monkeypatch.setitem(sys.modules, 'imgstudy.gone', module)
    torch.save(dict(setting=dict(format=1), epoch=2, callbacks=module.Gone()), checkpoint_file(run, tmp_path))
    monkeypatch.undo()
    assert train(run, root=tmp_path).info['cost']['resumed'] == []
    out = capsys.readouterr().out
    assert out.count('not used') == 1 and 'is damaged or of another version and not used (UnpicklingError)' in out

def test_a_stack_of_format_1_begins_again(tmp_path, capsys):
    runs = [create_run(**{**quick, 'epochs': 1}, seed=s) for s in (0, 1)]
    file = kept_in_format_1(tmp_path, stack_id(runs), runs=[dict(run_to_dict(r), field_that_is_gone=1) for r in runs])
    assert kept_stacks(tmp_path) == []
    assert [r.outcome for r in train_stacked(runs, tmp_path)] == ['finished', 'finished'] and not file.exists()
    assert 'format was 1, now 3' in capsys.readouterr().out


# deadline

def test_a_deadline_is_met_and_the_rest_continues(tmp_path, monkeypatch):
    "In real time: so many epochs as fit, none after the deadline; calls add up to the whole."
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    run, pauses = create_run(**{**quick, 'epochs': 8}), []
    whole = train(run, root=tmp_path/'whole')
    for _ in range(40):
        end = time.time() + 2.5*whole.history.seconds.max()
        monkeypatch.setenv('IMGSTUDY_DEADLINE', str(end))
        try: record = train(run, root=tmp_path)
        except Paused as e:
            pauses.append(str(e))
            assert not is_finished(tmp_path/run_id(run)) and not (tmp_path/run_id(run)).exists() and 'same command' in str(e)
            assert time.time() < end + 2
        else: break
        if len(pauses) == 2: monkeypatch.setattr(training, 'deadline', lambda: float('inf'))
    assert pauses
    assert_same(record.path, whole.path)


def test_a_deadline_for_several_runs(tmp_path, monkeypatch):
    "Those that are finished are not trained again, so that each call comes further."
    runs = [create_run(**{**quick, 'epochs': 1, 'seed': s}) for s in range(3)]
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + 3600))
    first = train(runs[0], root=tmp_path)
    records = train_all(runs, root=tmp_path)
    assert records[0].info['created'] == read_record(first.path).info['created'] and len(records) == 3
    monkeypatch.setenv('IMGSTUDY_DEADLINE', '1')
    with pytest.raises(Paused, match='began: the deadline has passed'): train(runs[0], root=tmp_path)
    monkeypatch.setenv('IMGSTUDY_DEADLINE', 'soon')
    with pytest.raises(StudyError, match='Unix time'): deadline()


# a full disk

def test_a_disk_that_is_really_full(start, tmp_path):
    "A file system with room for one checkpoint and not for the next, where that may be mounted."
    disk, run = tmp_path/'disk', create_run(**{**quick, 'epochs': 3}) # weights and moments of LeNet-5: 0.74 MB
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], capture_output=True).returncode: pytest.skip('no mounting here')
    try:
        process = start(run, disk)
        process.join()
        assert process.exitcode == 1 and [p.name for p in disk.iterdir()] == [checkpoint_file(run).name] and has_checkpoint(run, disk) == 1
        subprocess.run(['mount', '-o', 'remount,size=8m', disk], check=True)
        end(start(run, disk))
        end(start(run, tmp_path))
        assert_same(disk/run_id(run), tmp_path/run_id(run))
    finally: subprocess.run(['umount', disk])


@pytest.mark.parametrize('where', ['os.fsync', 'imgstudy.records.record.save_file', 'numpy.savez_compressed'])
def test_a_full_disk_is_said_and_nothing_is_half_written(where, tmp_path, monkeypatch):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    run = create_run(**{**quick, 'epochs': 2})
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    with monkeypatch.context() as m:
        m.setattr(where, full)
        with pytest.raises(DiskFull, match='is full: make room there, or set IMGSTUDY_RUNS'): train(run, root=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {checkpoint_file(run, tmp_path).name}
    record = train(run, root=tmp_path)
    assert_same(record.path, train(run, root=tmp_path/'whole').path)


# too little memory

@pytest.mark.parametrize('extra', [{}, dict(mixup=0.4), dict(cutmix=1., clip=0.1), dict(label_smoothing=0.1, ema=0.9, frozen_epochs=1)])
def test_halved_until_memory_does(extra, tmp_path, monkeypatch):
    "The same steps, the same weights up to rounding, and a model that never sees more than it can take."
    run = create_run(**{**quick, 'epochs': 2, 'opt': 'sgd', 'lr': 0.01, 'precision': 'fp32', **extra})
    whole, seen = train(run, root=tmp_path/'whole'), []
    def check(module, args):
        if not isinstance(module, torch.nn.Conv2d) or not module.training: return
        if len(args[0]) > 10: raise RuntimeError('[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory')
        seen.append(len(args[0]))
    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try: record = train(run, root=tmp_path)
    finally: hook.remove()
    assert record.info['model']['micro_batch'] == 8 and set(seen) == {8}
    a, b = (load_file(r.path/'weights.safetensors') for r in (record, whole))
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    assert np.allclose(record.history.train_loss, whole.history.train_loss, atol=1e-4) and np.allclose(record.history.lr, whole.history.lr)


@pytest.mark.parametrize('how, most, said', [('call', 10, 'a batch does not fit into memory at once'), ('call', 20, 'a batch does not fit into memory at once'),
                                             ('0', 10, 'switched off'), ('call', 1000, 'a hook acts on each batch')])
def test_the_record_says_that_parts_of_a_batch_are_not_captured(how, most, said, tmp_path, monkeypatch):
    if how == '0': said = 'it trains on a CPU' if not torch.cuda.is_available() else said
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    def check(module, args):
        if isinstance(module, torch.nn.Conv2d) and module.training and len(args[0]) > most:
            raise RuntimeError('[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory')
    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try: record = train(create_run(**{**quick, 'epochs': 1}), root=tmp_path)
    finally: hook.remove()
    assert record.info['model']['captured'] is False and record.info['model']['not_captured'] == said
    assert ('micro_batch' in record.info['model']) == (most < 1000)


def test_another_error_is_no_lack_of_memory(tmp_path):
    def check(module, args): raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        with pytest.raises(RuntimeError, match='mat1 and mat2'): train(create_run(**quick), root=tmp_path)
    finally: hook.remove()
