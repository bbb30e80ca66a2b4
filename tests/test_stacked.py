"Several trainings as one: each member ends as it would have ended alone, whatever becomes of the others."
import copy, math
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from dataclasses import replace
from fastai.basics import Callback
from safetensors.torch import load_file
import imgstudy.sweep.sweep, imgstudy.training.stacked, imgstudy.training.train, imgstudy.training.train_stacked
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.split import load_data
from imgstudy.training.stacked import Stack, fit_stacked, stack_key, stack_learners
from imgstudy.training.fit import fit
from imgstudy.training.learner import create_learner
from imgstudy.data.loaders import create_dls
from imgstudy.models.register import create_model
from imgstudy.records.record import read_record
from imgstudy.runs import fold_runs, run_id, seed_runs
from imgstudy.sweep.claims import Claim
from imgstudy.sweep.workers import Outcome, create_workers, run_plain
from imgstudy.sweep.sweep import _make_plan, as_one, attempt_stack, need_of, passes, stacks, sweep, work_stacked
from imgstudy.training.checkpoint import checkpoint_file
from imgstudy.training.train import train
from imgstudy.training.train_stacked import stack_id, train_stacked
from imgstudy.study.estimate import Speed, epoch_key
from imgstudy.study.create import create_run
from torch.nn import functional as F

quick = dict(dataset='digits', model='lenet5', epochs=3, augment='none', precision='fp32', bs=32)


def learner(run):
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, load_data(run)))


def together(runs, **kwargs): return fit_stacked(stack_learners([learner(r) for r in runs], [r.recipe for r in runs]), lines=1, **kwargs)


def weights(record): return load_file(record.path/'weights.safetensors')


def assert_same(a, b, atol):
    assert a.keys() == b.keys()
    for k in a: assert torch.allclose(a[k].float(), b[k].float(), atol=atol), k


networks = 'mlp_s lenet5 lenet5_bn lenet_modern cnn3 cnn_custom resnet9 vit convnext resnet18_32 mobilenetv2_32'.split()

@pytest.mark.parametrize('name', networks)
def test_a_training_step_of_a_stack_is_that_of_each_network_alone(name):
    "Logits, gradients and the running statistics of batch norm, in double precision, of three networks with images of their own."
    size = 64 if name == 'lenet_modern' else 32
    nets = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = create_model(name, 5, size=size).double()
        for m in net.modules():
            if isinstance(m, (torch.nn.Dropout, torch.nn.Dropout2d)): m.p = 0.
            if type(m).__name__ == 'DropPath': m.drop_prob = 0.
        nets.append(net.train())
    stack, x, y = Stack(nets).train(), torch.randn(3, 4, 3, size, size).double(), torch.randint(0, 5, (3, 4))
    logits = stack(x)
    F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction='none').view(3, 4).mean(1).sum().backward()
    for k, net in enumerate(nets):
        alone = net(x[k])
        F.cross_entropy(alone, y[k]).backward()
        assert torch.allclose(logits[k], alone, atol=1e-9)
        grads = torch.cat([p.grad.flatten() for p in net.parameters()])
        assert torch.allclose(stack.flat.grad[k], grads, atol=1e-9*max(1, grads.abs().max()))
        assert_same(stack.member(k), net.state_dict(), 1e-9)


def test_a_model_that_keeps_its_dropout_to_itself_is_not_given_two_rates():
    runs = [create_run(**{**quick, 'model': 'mobilenetv2_32', 'dropout': p}) for p in (.1, .4)]
    learners = [learner(r) for r in runs]
    with pytest.raises(StudyError, match='train them alone'): stack_learners(learners, [r.recipe for r in runs])


def test_folds_of_unequal_size_and_early_stops_are_those_of_each_alone():
    "1797 images in five folds: the last validation batch of some is one short."
    runs = [replace(r, recipe=replace(r.recipe, patience=p)) for r, p in
            zip(fold_runs(create_run(**{**quick, 'epochs': 8, 'opt': 'sgd', 'lr': .05, 'schedule': 'flat', 'folds': 5, 'subset': 600})), (1, 2, None, 1, None))]
    sizes = {len(load_data(r).of('valid')) for r in runs}
    assert len(sizes) == 2
    stopped = 0
    for run, m in zip(runs, together(runs)):
        learn = learner(run)
        history = fit(learn, run.recipe, lines=1)
        rows, alone = (pd.DataFrame(r).drop(columns='seconds') for r in (m.rows, history.rows))
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-3, atol=1e-4)
        assert (m.kept_epoch, m.images) == (history.best_epoch, history.images)
        assert_same(m.learn.model.state_dict(), learn.model.state_dict(), 1e-3)
        stopped += len(rows) < 8
    assert stopped # or nothing was tested


@pytest.mark.parametrize('opt', ['adam', 'sgd'])
def test_members_of_another_optimiser(opt):
    runs = [create_run(**quick, opt=opt, lr=lr, wd=wd, seed=s) for s, (lr, wd) in enumerate([(1e-3, 0.), (1e-2, 1e-3)])]
    for run, m in zip(runs, together(runs)):
        learn = learner(run)
        fit(learn, run.recipe, lines=1)
        assert_same(m.learn.model.state_dict(), learn.model.state_dict(), 1e-3)


@pytest.mark.parametrize('opt', ['adamw', 'adam', 'sgd'])
def test_weights_that_the_network_does_not_use_are_left_alone(opt):
    runs = [create_run(**quick, opt=opt, lr=lr, wd=.5, seed=s) for s, lr in enumerate([1e-3, 1e-2])]
    learners = [learner(run) for run in runs]
    for l in learners:
        l.model[0].register_parameter('extra', torch.nn.Parameter(torch.ones(3, 3)))
        next(g for g in l.groups if g.decays).params.append(l.model[0].extra)
    used = [{k: p.clone() for k, p in l.model.named_parameters() if 'extra' not in k} for l in learners]
    for m, start in zip(fit_stacked(stack_learners(learners, [r.recipe for r in runs]), lines=1), used):
        assert (m.learn.model[0].extra == 1).all()
        assert not any(torch.equal(v, start[k]) for k, v in m.learn.model.named_parameters() if k in start)


def test_each_member_has_its_own_dropout_and_augmentation():
    "What draws at random cannot agree number by number: losses of eight members and of eight trainings alone agree within their spread."
    base = create_run(**{**quick, 'model': 'lenet_modern', 'size': 16, 'augment': 'affine', 'epochs': 2, 'subset': 500})
    runs = [replace(r, recipe=replace(r.recipe, dropout=p)) for p in (.0, .8) for r in seed_runs(base, 6)]
    last = {}
    for p, m in zip([r.recipe.dropout for r in runs], together(runs)): last.setdefault(('as one', p), []).append(m.rows[-1]['train_loss'])
    for run in runs: last.setdefault(('alone', run.recipe.dropout), []).append(fit(learner(run), run.recipe, lines=1).rows[-1]['train_loss'])
    for p in (.0, .8):
        a, b = (np.array(last[how, p]) for how in ('as one', 'alone'))
        assert abs(a.mean() - b.mean()) < 4*math.sqrt((a.var(ddof=1) + b.var(ddof=1))/6) # four standard errors
        assert len(set(a)) == 6
    assert np.mean(last['as one', .8]) > np.mean(last['as one', .0]) + .1 # the rates did arrive


def test_members_see_the_augmentation_of_their_level_and_validate_without():
    "Whatever a level draws, it draws for training images alone."
    for level in ('basic', 'affine', 'erasing', 'cutout', 'standard', 'resized_crop'):
        runs = [create_run(**{**quick, 'augment': level, 'subset': 200}, seed=s) for s in (0, 1)]
        learners = [learner(r) for r in runs]
        stack = stack_learners(learners, [r.recipe for r in runs])
        plain = [learner(replace(r, augment='none')) for r in runs]
        drawn, same = ([b[0] for b in dl] for dl in (stack.dls.train, stack.dls.valid))
        for k, l in enumerate(plain):
            as_they_are = [b[0].as_subclass(torch.Tensor) for b in l.dls.train]
            changed = torch.cat([(x[k] - y).abs().amax((1, 2, 3)) > .1 for x, y in zip(drawn, as_they_are)])
            assert changed.float().mean() > .5, level
            for x, (y, _) in zip(same, learner(runs[k]).dls.valid): assert torch.equal(x[k], y.as_subclass(torch.Tensor)), level
        alone = [fit(learner(r), r.recipe, lines=1).rows[-1] for r in runs]
        for m, a in zip(fit_stacked(stack, lines=1), alone): assert abs(m.rows[-1]['valid_loss'] - a['valid_loss']) < .35, level


@pytest.mark.parametrize('more', [0, 1, 500])
def test_folds_whose_batches_differ_in_number_or_size_are_trained_apart(more, tmp_path):
    "With batches of as many images as the largest fold has, or more, which a loader cuts to the images that there are."
    sized = lambda k: [len(load_data(r).of('train')) for r in fold_runs(create_run(**quick, folds=k))]
    folds, sizes = next((k, s) for k in range(3, 12) if len(set(s := sized(k))) > 1)
    runs = fold_runs(create_run(**{**quick, 'epochs': 1, 'bs': max(sizes) + more}, folds=folds))
    records = train_stacked(runs, tmp_path)
    assert [r.run.fold for r in records] == list(range(folds)) and all(r.outcome == 'finished' for r in records)
    assert [r.info['model']['stacked'] for r in records] == [sizes.count(n) for n in sizes]


def test_a_stack_goes_on_when_some_of_its_runs_have_ended(tmp_path, monkeypatch):
    "Killed while the records are written: what is left finds its stack again, and the rest keeps its record."
    runs, real = seed_runs(create_run(**{**quick, 'epochs': 2}), 4), imgstudy.training.train_stacked.write_record
    monkeypatch.setattr(imgstudy.training.train.Checkpoint, 'every', 0.)
    def full(record, *args):
        if record.run.seed == 2: raise OSError(28, 'No space left on device')
        return real(record, *args)
    with monkeypatch.context() as m:
        m.setattr(imgstudy.training.train_stacked, 'write_record', full)
        assert work_stacked(runs, tmp_path, 'always')[0] == 'full'
    left = [r for r in runs if not (tmp_path/run_id(r)/'record.json').exists()]
    assert [r.seed for r in left] == [2, 3] and stacks(left, tmp_path) == [left]
    before = (tmp_path/run_id(runs[0])/'record.json').read_text()
    records = train_stacked(left, tmp_path)
    assert [r.info['cost']['resumed'] for r in records] == [[2], [2]] and not list(tmp_path.glob('.stack-*'))
    assert (tmp_path/run_id(runs[0])/'record.json').read_text() == before


def test_interrupted_and_continued_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    runs = [create_run(**{**quick, 'augment': 'affine'}, seed=s, lr=lr) for s, lr in ((0, 1e-3), (1, 1e-2), (2, 1e30))]
    whole = train_stacked(runs, tmp_path/'whole')
    monkeypatch.setattr(imgstudy.training.train.Checkpoint, 'every', 0.)
    epoch = imgstudy.training.stacked.StackedSchedules.before_epoch
    def stop(self):
        if self.epoch == 2: raise KeyboardInterrupt
        epoch(self)
    with monkeypatch.context() as m:
        m.setattr(imgstudy.training.stacked.StackedSchedules, 'before_epoch', stop)
        with pytest.raises(KeyboardInterrupt): train_stacked(runs, tmp_path/'cut')
    assert checkpoint_file(stack_id(runs), tmp_path/'cut').exists()
    cut = train_stacked(runs, tmp_path/'cut')
    assert not checkpoint_file(stack_id(runs), tmp_path/'cut').exists()
    for a, b in zip(whole[:2], cut):
        assert_same(weights(a), weights(b), 0)
        assert b.info['cost']['resumed'] == [2] and len(b.history) == 3
    assert [r.outcome for r in cut] == ['finished', 'finished', 'failed'] and 'Lower the peak rate' in cut[2].error


def test_too_little_memory_for_all_is_enough_for_two(tmp_path, monkeypatch):
    real, asked = imgstudy.training.train_stacked.fit_stacked, []
    def short(learn, *args, **kwargs):
        asked.append(len(learn.members))
        if len(learn.members) > 2: raise torch.OutOfMemoryError('out of memory')
        return real(learn, *args, **kwargs)
    monkeypatch.setattr(imgstudy.training.train_stacked, 'fit_stacked', short)
    runs = seed_runs(create_run(**{**quick, 'epochs': 1}), 5)
    records = train_stacked(runs, tmp_path)
    assert [r.run.seed for r in records] == [0, 1, 2, 3, 4] and asked == [5, 2, 3, 1, 2]
    assert all(r.outcome == 'finished' for r in records)


def test_where_it_does_not_pay_or_cannot_be_runs_are_trained_alone(tmp_path, monkeypatch):
    runs = seed_runs(create_run(**{**quick, 'epochs': 1}), 2)
    monkeypatch.setattr(imgstudy.sweep.sweep, 'choose_stack', lambda run, most: (1, 'a reason'))
    assert work_stacked(runs, tmp_path, 'auto') == ('alone', 'a reason')
    monkeypatch.setattr(imgstudy.sweep.sweep, 'train_stacked', lambda *a: 1/0)
    assert work_stacked(runs, tmp_path, 'always')[0] == 'alone'
    plan = _make_plan(tmp_path, run_plain, None, 60)
    assert attempt_stack(runs, plan, lambda rs, root: work_stacked(rs, root, 'always')) == []
    assert not list(tmp_path.glob('*/record.json'))


def test_each_member_streams_its_own_history(tmp_path, monkeypatch):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    monkeypatch.setenv('IMGSTUDY_TENSORBOARD', str(tmp_path/'events'))
    records = train_stacked([create_run(**{**quick, 'epochs': 4, 'patience': 1, 'lr': lr}) for lr in (1e-9, .003)], tmp_path)
    assert len(records[0].history) < len(records[1].history) == 4 # the first learns nothing, whatever the rounding, and ends early
    for r in records:
        events = accumulator.EventAccumulator(str(tmp_path/'events'/r.id)).Reload().Scalars('valid_loss')
        assert [e.step for e in events] == r.history.epoch.tolist()
        assert [e.value for e in events] == pytest.approx(r.history.valid_loss.tolist(), rel=1e-6)


def test_a_stack_without_time_for_an_epoch_is_not_begun(tmp_path):
    runs = seed_runs(create_run(**{**quick, 'epochs': 2}), 3)
    plan = _make_plan(tmp_path, run_plain, '10m', 60)
    speed, workers = Speed(), create_workers(plan, 1)
    assert need_of(runs, speed, plan) == 0 # not measured
    speed.known = {epoch_key(runs[0]): (400., 0.), epoch_key(runs[0], 3): (1200., 0.)}
    assert 400 < need_of(runs[:1], speed, plan) < 540 and 1200 < need_of(runs, speed, plan) < 1300
    assert list(as_one([runs], plan, speed, workers, when='always')) == [] and not list(tmp_path.glob('*/record.json'))


@pytest.mark.parametrize('limit', [None, '10m'])
def test_under_a_time_limit_groups_and_single_runs_take_turns(limit, tmp_path):
    "The shortest first, each offered until it has ended; without a limit the groups come first."
    named = {name: create_run(**{**quick, 'epochs': 1, 'bs': bs}) for name, bs in dict(brief=20, middle=30, lasting=40).items()}
    named |= {f'pair {r.seed}': r for r in seed_runs(create_run(**{**quick, 'epochs': 1, 'bs': 50}), 2)}
    named |= {f'trio {r.seed}': r for r in seed_runs(create_run(**{**quick, 'epochs': 1, 'bs': 60}), 3)}
    named['follower'] = create_run(**{**quick, 'epochs': 1, 'bs': 70, 'init': f"run:{run_id(named['lasting'])}"})
    seconds = {'brief': 5., 'middle': 30., 'lasting': 99., 'pair 0': 10., 'trio 0': 20., 'follower': 1.}
    name = {run_id(r): key for key, r in named.items()}
    speed, plan, seen = Speed(), _make_plan(tmp_path, run_plain, limit, 60), []
    for key, s in seconds.items(): speed.known[epoch_key(named[key])] = s, 0.
    def together(groups, plan, speed):
        for group in groups:
            seen.append(' + '.join(name[run_id(r)] for r in group))
            if 'pair' in seen[-1]: yield from (Outcome(run_id(r), 'done') for r in group) # the trio is slower as one
    def offer(turns, plan):
        for run, _ in turns:
            seen.append(name[run_id(run)])
            held = seen[-1] == 'brief' and seen.count('brief') == 1 # by another process, for a moment
            yield Outcome(run_id(run), 'busy' if held else 'done')
    order = list(reversed(named.values()))
    ended = [name[o.id] for o in passes(sorted(order, key=lambda r: r.init != 'scratch'), plan, speed, True, offer, together)]
    assert sorted(ended) == sorted(named)
    groups = ['pair 1 + pair 0', 'trio 2 + trio 1 + trio 0']
    if limit: assert seen == ['brief', groups[0], 'middle', groups[1], 'brief', 'trio 2', 'trio 1', 'trio 0', 'lasting', 'follower']
    else: assert seen == [*groups[::-1], 'trio 2', 'trio 1', 'trio 0', 'lasting', 'middle', 'brief', 'follower', 'brief']


def test_a_run_that_another_process_has_is_left_to_it(tmp_path):
    runs = seed_runs(create_run(**{**quick, 'epochs': 1}), 3)
    plan = _make_plan(tmp_path, run_plain, None, 60)
    with Claim(tmp_path, run_id(runs[1])):
        ended = attempt_stack(runs, plan, lambda rs, root: work_stacked(rs, root, 'always'))
    assert [(o.id, o.state) for o in ended] == [(run_id(r), 'done') for r in (runs[0], runs[2])]
    assert read_record(tmp_path/run_id(runs[0])).info['model']['stacked'] == 2
    states = sweep(runs, tmp_path, notebook=False, stack='always') # the third is by itself
    assert set(states.state) == {'done'} and 'stacked' not in read_record(tmp_path/run_id(runs[1])).info['model']


@pytest.mark.parametrize('gpu, notebook, own, asked', [(True, False, False, True), (True, True, False, True), (True, False, True, False), (False, False, False, False)])
def test_on_a_gpu_a_sweep_tries_stacks_by_itself(gpu, notebook, own, asked, tmp_path, monkeypatch):
    "Whether the runs are offered as a stack; none is trained."
    runs, seen, module = seed_runs(create_run(**{**quick, 'epochs': 1}), 2), [], imgstudy.sweep.sweep
    monkeypatch.setattr(module, 'torch', SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: gpu)))
    def passes(order, plan, speed, retry, offer, together):
        seen.append(together is not None)
        return []
    monkeypatch.setattr(module, 'passes', passes)
    monkeypatch.setattr(module, 'create_workers', lambda plan, jobs: type('Workers', (), {'close': lambda self: None})())
    module.sweep(runs, tmp_path, notebook=notebook, runner=run_plain if own else None, speed=Speed())
    assert seen == [asked]


@pytest.mark.cuda
def test_on_a_gpu_a_stack_ends_as_each_alone_and_waits_for_nothing():
    class Watch(Callback):
        order = -100
        def before_batch(self): torch.cuda.set_sync_debug_mode('error' if self.training and self.iter else 'default')
        def after_train(self): torch.cuda.set_sync_debug_mode('default')
    runs = [create_run(**quick, seed=s, lr=lr) for s, lr in enumerate((1e-3, 5e-3, 1e-2, 1e30))] # the last diverges, and must not touch the others
    try: members = together(runs, cbs=[Watch()])
    finally: torch.cuda.set_sync_debug_mode('default')
    for run, m in zip(runs[:3], members):
        learn = learner(run)
        fit(learn, run.recipe, lines=1)
        assert_same({k: v.cpu() for k, v in m.learn.model.state_dict().items()}, {k: v.cpu() for k, v in learn.model.state_dict().items()}, 2e-2)


def test_a_batch_norm_off_the_cpu_keeps_the_type_of_its_statistics():
    "On the meta device, as on a card: half precision comes in and goes out, float32 is normalised."
    from imgstudy.training.stacked import _in_kept_type
    seen = []
    class Seen(torch.nn.BatchNorm2d):
        def forward(self, x): seen.append(x.dtype); return super().forward(x)
    norm = Seen(3, device='meta')
    assert _in_kept_type(norm, torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16, device='meta')).dtype == torch.bfloat16
    assert seen == [torch.float32]
