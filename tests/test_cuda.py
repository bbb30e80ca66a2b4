"What must hold on a GPU."
import pytest, torch
from kills import kill_after
from safetensors.torch import load_file
from imgstudy.training.train import train
from imgstudy.study.create import create_run


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'convnext'])
def test_a_gpu_run_repeats_bit_for_bit_and_says_what_it_used(model, tmp_path):
    run = create_run(dataset='digits', model=model, epochs=2, subset=300)
    a, b = (train(run, root=tmp_path/name) for name in 'ab')
    wa, wb = (load_file(r.path/'weights.safetensors') for r in (a, b))
    assert all(torch.equal(wa[k], wb[k]) for k in wa)
    assert a.info['environment']['gpu'] == torch.cuda.get_device_name()
    assert a.info['model']['channels_last'] and a.info['model']['precision'] in ('bf16', 'fp32')


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
    run = create_run(dataset='digits', model='lenet5', epochs=2, augment='basic')
    data = load_data(run)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, data))
    try: fit(learn, run.recipe, cbs=[Watch()])
    finally: torch.cuda.set_sync_debug_mode('default')


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
def test_a_captured_training_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    run = _run(model='cnn3', dropout=.2)
    whole = train(run, root=tmp_path/'whole')
    kill_after(1, monkeypatch, lambda: train(run, root=tmp_path/'cut'))
    cut = train(run, root=tmp_path/'cut')
    assert cut.info['model']['captured'] is True and cut.info['cost']['resumed'] == [1]
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole).values(), _weights(cut).values()))


@pytest.mark.cuda
@pytest.mark.parametrize('model', ['lenet5', 'cnn3', 'vit'])
def test_a_stack_is_captured(model, tmp_path, monkeypatch):
    from imgstudy.training.train_stacked import train_stacked
    runs, ends = [_run(model=model, seed=s, augment=a) for s, a in enumerate(('none', 'basic', 'standard'))], {}
    for how in ('call', ''):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        ends[how] = train_stacked(runs, root=tmp_path/(how or 'captured'))
    for a, b in zip(*ends.values()):
        assert b.outcome == 'finished' and b.info['model']['captured'] is True
        assert all(torch.equal(p, q) for p, q in zip(_weights(a).values(), _weights(b).values()))


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
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    called = train(run, root=tmp_path/'called')
    assert failed.info['model']['captured'] is False
    assert all(torch.equal(a, b) for a, b in zip(_weights(failed).values(), _weights(called).values()))


@pytest.mark.cuda
def test_no_replay_waits_for_the_gpu(monkeypatch):
    from imgstudy.core import seed_everything
    from imgstudy.data.loaders import create_dls
    from imgstudy.data.split import load_data
    from imgstudy.training.capture import Engine
    from imgstudy.training.fit import fit
    from imgstudy.training.learner import create_learner
    launch = Engine._launch
    def watched(self):
        torch.cuda.set_sync_debug_mode('error')
        try: launch(self)
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
    from imgstudy.sweep.workers import run_plain, work
    reserved = []
    for seed in range(50):
        run = create_run(dataset='digits', model='lenet5', epochs=1, seed=seed)
        assert work(run, tmp_path, run_plain) == ('done', '')
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
