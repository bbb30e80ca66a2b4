"What must hold on a GPU."
import pytest, torch
from kills import kill_after
from safetensors.torch import load_file
from imgstudy.training.train import train
from imgstudy.study.create import create_run


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_a_gpu_run_repeats_bit_for_bit_and_says_what_it_used(model, tmp_path):
    run = create_run(dataset='digits', model=model, epochs=2, subset=300, augment='basic')
    a, b = (train(run, root=tmp_path/name) for name in 'ab')
    assert a.info['model']['captured'] is True and b.info['model']['captured'] is True
    wa, wb = (load_file(r.path/'weights.safetensors') for r in (a, b))
    assert all(torch.equal(wa[k], wb[k]) for k in wa)
    assert a.info['environment']['gpu'] == torch.cuda.get_device_name()
    assert a.info['model']['channels_last'] and a.info['model']['precision'] in ('bf16', 'fp16', 'fp32')


@pytest.mark.cuda
def test_no_step_waits_for_the_gpu(tmp_path):
    "Between the first batch of an epoch and its last nothing is copied to the CPU."
    from imgstudy.core import seed_everything
    from imgstudy.data.split import load_data
    from imgstudy.training.fit import fit
    from imgstudy.training.learner import create_learner
    from imgstudy.data.loaders import create_dls
    from fastai.basics import Callback
    class Watch(Callback):
        order = -100
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training and self.iter else 'default')
        def after_train(self): torch.cuda.set_sync_debug_mode('default')
    run = create_run(dataset='digits', model='lenet5', epochs=2, augment='basic', precision='fp32', bs=8) # in fp16 fastai's loop asks whether to skip a step
    data = load_data(run)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, data))
    assert len(learn.dls.train) > 128
    try: fit(learn, run.recipe, cbs=[Watch()])
    finally: torch.cuda.set_sync_debug_mode('default')
    assert learn.layout['not_captured'] == 'watch acts on each batch' # it was fastai's loop


@pytest.mark.cuda
def test_a_gpu_counts_its_joules(tmp_path):
    pytest.importorskip('pynvml')
    cost = train(create_run(dataset='digits', model='lenet5', epochs=2, subset=300), root=tmp_path).info['cost']
    assert torch.cuda.get_device_name() in cost['counters'] and 0 < cost['joules'] < 2000*cost['seconds'] # watts


def _run(**kwargs): return create_run(**(dict(dataset='digits', model='lenet5', epochs=3, subset=400, bs=32, augment='basic') | kwargs))


def _weights(record): return load_file(record.path/'weights.safetensors')


@pytest.mark.cuda
@pytest.mark.parametrize('options', [
    dict(), dict(precision='fp32', augment='none'), dict(opt='sgd', lr=.01, augment='standard'), dict(opt='adam', clip=.5, augment='erasing'),
    dict(ema=.9), dict(model='cnn3', dropout=.3), dict(model='cnn_custom'), dict(model='convnext', frozen_epochs=1),
    dict(model='convnext', layer_decay=.7), dict(model='vit', augment='affine'), dict(valid=0, augment='cifar100')], ids=str)
def test_a_captured_training_has_the_bits_of_called_steps(options, tmp_path, monkeypatch):
    run, ends = _run(**options), {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how] = train(run, root=tmp_path/(how or 'captured'))
    assert ends[''].info['model']['captured'] is True and ends[''].info['model']['capture_difference'] == 0
    a, b = map(_weights, ends.values())
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.cuda
@pytest.mark.parametrize('options', [dict(model='cnn3', dropout=.3), dict(augment='standard'), dict(precision='fp16', model='cnn3', dropout=.1), dict(augment='none')], ids=str)
def test_replays_leave_the_generator_where_called_steps_leave_it(options, tmp_path, monkeypatch):
    "So that what is drawn later, as by the next epoch, is the same."
    from imgstudy.training import capture
    compared, trial = [], capture.trial
    monkeypatch.setattr(capture, 'trial', lambda *args: (compared.append(out := trial(*args)), out)[1])
    record = train(_run(**options), root=tmp_path)
    assert record.info['model']['captured'] is True
    called, again, replayed = (c[-1] for c in compared)
    assert torch.equal(called, again) and torch.equal(called, replayed) and called.numel() == 16 # seed and offset


@pytest.mark.cuda
def test_a_recording_that_draws_more_is_refused(tmp_path, monkeypatch, capsys):
    from imgstudy.training import capture
    trial, calls = capture.trial, []
    def more(*args):
        out = trial(*args)
        calls.append(1)
        if len(calls) == 3: out[-1] = out[-1].roll(1)
        return out
    monkeypatch.setattr(capture, 'trial', more)
    record = train(_run(), root=tmp_path)
    assert record.info['model']['captured'] is False and 'draw other random numbers' in capsys.readouterr().out


@pytest.mark.cuda
def test_a_captured_training_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    run = _run(model='cnn3', dropout=.2)
    whole = train(run, root=tmp_path/'whole')
    kill_after(1, monkeypatch, lambda: train(run, root=tmp_path/'cut'))
    cut = train(run, root=tmp_path/'cut')
    assert cut.info['model']['captured'] is True and cut.info['cost']['resumed'] == [1]
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole).values(), _weights(cut).values()))


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'cnn3', 'vit', 'resnet9'])
def test_a_stack_is_captured(model, tmp_path, monkeypatch):
    from imgstudy.training import train_stacked as module
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: dict(channels_last=False, valid_apart=False)) # it is measured for each mode
    runs, ends = [_run(model=model, seed=s, augment=a) for s, a in enumerate(('none', 'basic', 'standard'))], {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how] = module.train_stacked(runs, root=tmp_path/(how or 'captured'))
    for a, b in zip(*ends.values()):
        assert b.outcome == 'finished' and b.info['model']['captured'] is True
        assert all(torch.equal(p, q) for p, q in zip(_weights(a).values(), _weights(b).values()))


@pytest.mark.cuda
@pytest.mark.parametrize('options', [dict(), dict(model='cnn3', dropout=.2, augment='standard'), dict(model='vit', clip=.5)], ids=str)
def test_a_stack_of_one_is_captured(options, tmp_path, monkeypatch):
    "As what is left of a stack of which the others have ended; it is not put through vmap."
    from imgstudy.training import train_stacked as module
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: dict(channels_last=False, valid_apart=False)) # it is measured for each mode
    run, ends = _run(**options), {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how], = module.train_stacked([run], root=tmp_path/(how or 'captured'))
    called, captured = ends.values()
    assert captured.outcome == 'finished' and captured.info['model']['stacked'] == 1
    assert captured.info['model']['captured'] is True and captured.info['model']['capture_difference'] == 0
    assert all(torch.equal(p, q) for p, q in zip(_weights(called).values(), _weights(captured).values(), strict=True))


@pytest.mark.cuda
def test_a_training_in_parts_of_a_batch_says_why_it_is_not_captured(tmp_path):
    "Out of memory with more than ten images at once."
    def check(module, args):
        if isinstance(module, torch.nn.Conv2d) and module.training and len(args[0]) > 10: raise torch.OutOfMemoryError('CUDA out of memory')
    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try: record = train(_run(), root=tmp_path)
    finally: hook.remove()
    assert record.info['model']['micro_batch'] == 8
    assert record.info['model']['captured'] is False and record.info['model']['not_captured'] == 'a batch does not fit into memory at once'


@pytest.mark.cuda
@pytest.mark.parametrize('options', [dict(), dict(model='cnn3', dropout=.2), dict(precision='fp16', opt='sgd', lr=.01)], ids=str)
def test_a_captured_stack_that_was_killed_ends_with_the_same_bits(options, tmp_path, monkeypatch):
    "Also what is drawn: the offset of the generator is part of the checkpoint."
    from kills import Kill, Killed
    from imgstudy.training import train_stacked as module
    from imgstudy.training.checkpoint import Checkpoint
    runs = [_run(seed=s, augment=a, clip=.5 if s else None, **options) for s, a in enumerate(('none', 'basic', 'standard'))]
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: dict(channels_last=False, valid_apart=False)) # not measured here
    whole = module.train_stacked(runs, root=tmp_path/'whole')
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'every', 0)
        m.setattr(module, 'event_cbs', lambda *args, **kwargs: [Kill(1)])
        with pytest.raises(Killed): module.train_stacked(runs, root=tmp_path/'cut')
    cut = module.train_stacked(runs, root=tmp_path/'cut')
    for a, b in zip(whole, cut, strict=True):
        assert b.outcome == 'finished' and b.info['cost']['resumed'] == [1]
        for r in (a, b): assert r.info['model']['captured'] is True and r.info['model']['capture_difference'] == 0
        assert all(torch.equal(p, q) for p, q in zip(_weights(a).values(), _weights(b).values(), strict=True))


@pytest.mark.cuda
def test_after_a_captured_epoch_the_last_batch_is_there(monkeypatch):
    "For callbacks, in memory of its own; as after called steps."
    from fastai.basics import Callback
    from imgstudy.core import seed_everything
    from imgstudy.data.loaders import create_dls
    from imgstudy.data.split import load_data
    from imgstudy.training.fit import fit
    from imgstudy.training.learner import create_learner
    class Last(Callback):
        def before_fit(self): self.seen = []
        def after_train(self): self.seen += [*self.learn.xb, *self.learn.yb, self.learn.pred, self.learn.loss]
    run, ends = _run(), []
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        seed_everything(run.seed)
        learn, last = create_learner(run, create_dls(run, load_data(run))), Last()
        fit(learn, run.recipe, lines=1, cbs=[last])
        assert learn.layout['captured'] is (how == '')
        ends.append(last.seen)
    assert len(ends[0]) == 12 and all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.cuda
def test_a_setting_that_changes_is_captured_anew(tmp_path, monkeypatch):
    "A list of numbers, and a tensor, whose memory a recording would go on to read."
    from fastai.basics import Callback
    class Change(Callback):
        order = 99
        def before_epoch(self):
            if self.epoch != 1: return
            tfms = {type(f).__name__: f for f in self.dls.train.after_batch.fs}
            tfms['BatchErasing'].scale, tfms['Normalize'].mean = (.3, .33), tfms['Normalize'].mean + .1
    monkeypatch.setattr('imgstudy.training.train.event_cbs', lambda *args, **kwargs: [Change()])
    run, ends = _run(augment='erasing'), {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how] = train(run, root=tmp_path/(how or 'captured'))
    assert ends[''].info['model']['captured'] is True
    assert all(torch.equal(a, b) for a, b in zip(*(_weights(r).values() for r in ends.values())))


@pytest.mark.cuda
def test_a_capture_that_fails_says_so_and_trains(tmp_path, monkeypatch, capsys):
    "Asking the device for a value is what a recording cannot do."
    from imgstudy.training.step import Step
    run, batch = _run(), Step.batch
    def asking(self):
        if torch.cuda.is_current_stream_capturing(): self.pos.item()
        return batch(self)
    monkeypatch.setattr(Step, 'batch', asking)
    failed = train(run, root=tmp_path/'failed')
    assert 'The training step is not captured (' in capsys.readouterr().out
    monkeypatch.setattr(Step, 'batch', batch)
    again = train(run, root=tmp_path/'again') # in the same process, which draws and records as before
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    called = train(run, root=tmp_path/'called')
    assert failed.info['model']['captured'] is False and again.info['model']['captured'] is True
    for r in (failed, again): assert all(torch.equal(a, b) for a, b in zip(_weights(r).values(), _weights(called).values()))


@pytest.mark.cuda
def test_a_capture_that_fails_gives_its_memory_back(monkeypatch, tmp_path):
    from imgstudy.training.step import Step
    from imgstudy.training.train import free_memory
    run, batch, reserved = _run(model='cnn3', bs=64), Step.batch, []
    def asking(self):
        x = batch(self)
        if torch.cuda.is_current_stream_capturing(): torch.empty(2**28, dtype=torch.uint8, device='cuda'); self.pos.item()
        return x
    monkeypatch.setattr(Step, 'batch', asking)
    for i in range(4):
        train(run, root=tmp_path/str(i))
        free_memory()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[0] + 2**26, reserved


@pytest.mark.cuda
def test_a_capture_that_fails_on_a_stream_leaves_the_others_alone(tmp_path, monkeypatch):
    from imgstudy.training.step import Step
    runs, batch = [_run(seed=s, dropout=.1, model='cnn3') for s in range(3)], Step.batch
    alone = [train(r, root=tmp_path/'alone') for r in runs]
    def asking(self):
        if torch.cuda.is_current_stream_capturing() and self.dl.bs == 20: self.pos.item()
        return batch(self)
    monkeypatch.setattr(Step, 'batch', asking)
    ends = _beside([_run(seed=9, bs=20, augment='standard'), *runs], tmp_path/'beside')
    assert ends[0].result.info['model']['captured'] is False
    for i, whole in enumerate(alone):
        record = ends[i + 1].result
        assert record.info['model']['captured'] is True
        assert all(torch.equal(a, b) for a, b in zip(_weights(record).values(), _weights(whole).values()))


@pytest.mark.cuda
def test_deterministic_kernels_fill_no_memory():
    from imgstudy.core import seed_everything
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled() and not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.cuda
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('tokens', [65, 197, 256])
def test_attention_has_the_same_gradient_again(tokens, dtype):
    "Of as many tokens as images of 224 pixels make, with the width of a head of ViT-S."
    from imgstudy.core import seed_everything
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False): pytest.skip('no bfloat16')
    seed_everything(0)
    qkv = [torch.randn(16, 6, tokens, 64, device='cuda', dtype=dtype, requires_grad=True) for _ in range(3)]
    up = torch.randn(16, 6, tokens, 64, device='cuda', dtype=dtype)
    first, *more = [torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(*qkv), qkv, up) for _ in range(20)]
    assert all(torch.equal(a, b) for grads in more for a, b in zip(first, grads))


@pytest.mark.cuda
def test_recordings_share_one_stream(tmp_path, monkeypatch):
    from imgstudy.training.step import Step
    record, streams = Step.record, []
    monkeypatch.setattr(Step, 'record', lambda self, stream: (streams.append(stream), record(self, stream))[1])
    for seed in range(2): train(_run(model='convnext', frozen_epochs=1, seed=seed), root=tmp_path)
    assert len(streams) == 4 and len(set(streams)) == 1


@pytest.mark.cuda
def test_no_replay_waits_for_the_gpu(monkeypatch):
    from imgstudy.core import seed_everything
    from imgstudy.data.loaders import create_dls
    from imgstudy.data.split import load_data
    from imgstudy.training.capture import Engine
    from imgstudy.training.fit import fit
    from imgstudy.training.learner import create_learner
    launch = Engine._launch
    def watched(self): # a generator
        torch.cuda.set_sync_debug_mode('error')
        try: yield from launch(self)
        finally: torch.cuda.set_sync_debug_mode('default')
    monkeypatch.setattr(Engine, '_launch', watched)
    run = create_run(dataset='digits', model='lenet5', epochs=2, augment='basic', bs=8)
    data = load_data(run)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, data))
    fit(learn, run.recipe)
    assert learn.layout['captured']


@pytest.mark.cuda
def test_fifty_runs_leave_no_memory_behind(tmp_path):
    "A worker gives back what each run took, with the memory of its graph: the fiftieth leaves no more than the fifth."
    from imgstudy.records.record import read_record
    from imgstudy.runs import run_id
    from imgstudy.sweep.workers import run_plain, work
    reserved = []
    for seed in range(50):
        run = create_run(dataset='digits', model='lenet5', epochs=1, seed=seed, augment='basic')
        assert work(run, tmp_path, run_plain) == ('done', '')
        assert read_record(tmp_path/run_id(run)).info['model']['captured'] is True
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= reserved[4], reserved


@pytest.mark.cuda
def test_a_worker_takes_at_most_its_share(tmp_path, monkeypatch):
    from imgstudy.sweep.workers import on_gpu
    monkeypatch.setenv('IMGSTUDY_GPU_MEMORY', '0.1')
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        with on_gpu(), pytest.raises(torch.OutOfMemoryError): torch.empty(int(.2*total), dtype=torch.uint8, device='cuda')
    finally: torch.cuda.set_per_process_memory_fraction(1.)


def _beside(runs, root):
    from imgstudy.training.streams import side_by_side
    from imgstudy.training.train import train_turns
    begins = [lambda lane, r=r: train_turns(r, root=root, way=lane.fit) for r in runs]
    return {i: lane for i, lane in side_by_side(begins)}


kinds = [dict(model='cnn3', dropout=.3, augment='standard'), dict(model='vit', opt='sgd', lr=.01, bs=20), dict(ema=.9, epochs=2, size=28), dict(mixup=.4),
         dict(model='convnext', frozen_epochs=1), dict(model='resnet9', precision='fp32', augment='erasing'), dict(precision='fp16', dropout=.1, model='cnn3')]


@pytest.mark.cuda
def test_on_streams_each_is_captured_and_ends_with_the_bits_that_it_has_alone(tmp_path, monkeypatch):
    "With dropout and augmentation: graphs that shared a generator would race on its offset; with shared workspaces cuBLAS would mix them up."
    from imgstudy.training.capture import Engine
    monkeypatch.setattr(Engine, 'portion', 3)
    runs = [_run(**kind, seed=s) for s, kind in enumerate(kinds)]
    alone = [train(r, root=tmp_path/'alone') for r in runs]
    for again in range(2): # the trainings meet at other moments
        ends = _beside(runs[again:] + runs[:again], tmp_path/f'beside{again}')
        for i, r in enumerate(runs[again:] + runs[:again]):
            record, single = ends[i].result, alone[runs.index(r)]
            assert record is not None, ends[i].error
            assert all(torch.equal(a, b) for a, b in zip(_weights(record).values(), _weights(single).values())), r
            assert record.info['model'].pop('streams') == len(runs) and record.info['model'] == single.info['model']
            assert record.info['model']['captured'] is (r.recipe.mixup is None)


@pytest.mark.cuda
def test_killed_on_a_stream_it_goes_on_alone(tmp_path, monkeypatch):
    "The checkpoint has the offset of the training's own generator."
    from imgstudy.training.checkpoint import has_checkpoint
    runs = [_run(**kind, seed=s) for s, kind in enumerate(kinds[:3])]
    kill_after(1, monkeypatch, lambda: _beside(runs, tmp_path/'cut'))
    run = next(r for r in runs if has_checkpoint(r, tmp_path/'cut')) # whichever was the first
    whole, cut = (train(run, root=tmp_path/name) for name in ('whole', 'cut'))
    assert cut.info['cost']['resumed'] == [1] and cut.info['model']['captured'] is True
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole).values(), _weights(cut).values()))


@pytest.mark.cuda
def test_streams_leave_the_generator_and_the_stream_as_they_were(tmp_path):
    torch.manual_seed(7)
    state = torch.cuda.get_rng_state()
    _beside([_run(**kind) for kind in kinds[:2]], tmp_path)
    assert torch.equal(torch.cuda.get_rng_state(), state) and torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.cuda
def test_what_streams_gain_is_measured_once_and_kept(tmp_path, monkeypatch):
    import json
    from imgstudy.training import train_stacked
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path))
    run = create_run(dataset='digits', model='lenet5', bs=32, augment='basic')
    n = train_stacked.best_streams(run)
    kept = json.loads((tmp_path/'streams.json').read_text())
    assert 1 <= n <= 16 and kept and all(torch.cuda.get_device_name() in k for k in kept)
    monkeypatch.setattr(train_stacked, 'streams_gain', lambda run, n: 1/0)
    assert train_stacked.best_streams(run) == n


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_the_precision_is_measured_once_and_kept(model, tmp_path, monkeypatch):
    import json
    from imgstudy.training import precision
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    run = create_run(dataset='digits', model=model, epochs=2, bs=32, augment='basic')
    first = train(run, root=tmp_path/'a')
    gains = json.loads((tmp_path/'cache'/'precision.json').read_text())
    said = first.info['model']
    assert [round(g, 2) for g in gains.values()] == [said['precision_gain']] and all(torch.cuda.get_device_name() in k for k in gains)
    assert (said['precision'] == 'fp32') == ([*gains.values()][0] <= 1.1)
    monkeypatch.setattr(precision, 'precision_gain', lambda run, n: 1/0)
    again = train(run, root=tmp_path/'b')
    assert again.info['model']['precision_gain'] == said['precision_gain'] and again.info['model']['captured'] is True
    asked = train(create_run(**dict(dataset='digits', model=model, epochs=2, bs=32, augment='basic'), precision=said['precision']), root=tmp_path/'c')
    assert all(torch.equal(*pair) for r in (again, asked) for pair in zip(_weights(first).values(), _weights(r).values()))


@pytest.mark.cuda
@pytest.mark.parametrize('options', [dict(), dict(model='cnn3', dropout=.3), dict(opt='sgd', lr=.01, ema=.9, clip=.5)], ids=str)
def test_in_float16_a_captured_step_skips_as_a_called_one(options, tmp_path, monkeypatch):
    "The factor begins so high that the first steps have infinite gradients."
    from imgstudy.training.loss_scale import Scale
    init = Scale.__init__
    monkeypatch.setattr(Scale, '__init__', lambda self, device, members=None: init(self, device, members, 2.**28))
    run, ends = _run(**options, precision='fp16'), {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how] = train(run, root=tmp_path/(how or 'captured'))
    assert ends[''].info['model']['captured'] is True and ends[''].info['model']['precision'] == 'fp16'
    assert all(torch.equal(a, b) for a, b in zip(*(_weights(r).values() for r in ends.values())))
    kill_after(1, monkeypatch, lambda: train(run, root=tmp_path/'cut'))
    assert all(torch.equal(a, b) for a, b in zip(_weights(ends['']).values(), _weights(train(run, root=tmp_path/'cut')).values()))


@pytest.mark.cuda
def test_a_stack_in_float16_is_captured(tmp_path):
    from imgstudy.training.train_stacked import train_stacked
    records = train_stacked([_run(model=m, precision='fp16', seed=s) for m in ['vit'] for s in range(3)], root=tmp_path)
    assert all(r.outcome == 'finished' and r.info['model']['captured'] is True for r in records)


@pytest.mark.cuda
def test_a_sweep_without_notebooks_trains_side_by_side(tmp_path):
    from imgstudy.sweep.sweep import sweep
    runs = [_run(**kind, seed=s) for s, kind in enumerate(kinds[:3])]
    states = sweep(runs, tmp_path, notebook=False, time_limit='5m') # without one, measuring what pays may take as long as it likes
    assert set(states.state) == {'done'}


@pytest.mark.cuda
def test_losses_kept_on_a_gpu_can_be_drawn_and_a_rate_found():
    from imgstudy.core import seed_everything
    from imgstudy.data.split import load_data
    from imgstudy.training.fit import find_lr
    from imgstudy.training.learner import create_learner
    from imgstudy.data.loaders import create_dls
    run = create_run(dataset='digits', model='cnn3', epochs=1, augment='basic')
    seed_everything(0)
    learn = create_learner(run, create_dls(run, load_data(run)))
    assert 0 < find_lr(learn) < 1
    learn.fit(1)
    learn.recorder.plot_loss()


@pytest.mark.cuda
def test_a_stack_with_batch_norm_trains_on_a_gpu(tmp_path):
    from imgstudy.runs import seed_runs
    from imgstudy.sweep.sweep import work_stacked
    runs = seed_runs(create_run(dataset='digits', model='resnet9', epochs=1, subset=120, bs=16, augment='basic'), 2)
    assert work_stacked(runs, tmp_path, 'always') == ('done', '')


@pytest.mark.cuda
def test_a_head_on_features_is_described_on_a_gpu(tmp_path):
    "Its body stays where the features were computed."
    run = create_run(dataset='digits', model='cnn3', tune='head', epochs=1, subset=100, augment='none')
    assert train(run, root=tmp_path).info['model']['flops'] > 0
