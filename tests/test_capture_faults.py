"What a recording of a training step must not do: poison the process, bake in what changes, take what it cannot do, or slow itself down."
from functools import partial
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.basics import Adam, Callback, CancelFitException, OptimWrapper
from fastai.callback.training import GradientClip
from fastai.data.all import Transform
from fastai.vision.core import TensorImage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from imgstudy.core import seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training import capture
from imgstudy.training.capture import CaptureFailed, largest_difference, trial
from imgstudy.training.fit import History, StopOnNaN, fit
from imgstudy.training.learner import create_learner
from imgstudy.training.step import Step

base = dict(dataset='digits', model='lenet5', epochs=2, precision='fp32', subset=200, bs=32, augment='none')
loaded = {}


def learner_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, loaded[part_of(run)]))


def step_of(learn):
    "A step of `learn` as it is at the beginning of its first epoch."
    learn.create_opt()
    learn.opt.set_hypers(lr=.01)
    learn.epoch, learn.n_epoch = 0, 1
    learn.model.train()
    step = Step(learn)
    step.begin()
    return step


@pytest.fixture
def on_gpu(monkeypatch):
    "The machine seems to have a GPU; deterministic mode ends with the test."
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def test_deterministic_kernels_fill_no_memory(on_gpu):
    "On a CPU an empty tensor is filled by the same code as on a GPU."
    seed_everything(0)
    assert torch.are_deterministic_algorithms_enabled() and not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.empty(100_000).isnan().all()


def test_only_attention_with_a_deterministic_gradient_is_left(on_gpu):
    "Of up to 256 tokens, that of FlashAttention is; with `warn_only`, the other two are not whatever the number."
    on = torch.backends.cuda
    seed_everything(0)
    assert on.flash_sdp_enabled() and on.math_sdp_enabled()
    assert not on.cudnn_sdp_enabled() and not on.mem_efficient_sdp_enabled()


class Watch(TorchDispatchMode):
    "Notes the operations that return a tensor in double precision, which Apple's GPUs do not have."
    def __init__(self): super().__init__(); self.seen = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if any(isinstance(t, torch.Tensor) and t.dtype == torch.float64 for t in tree_leaves(out)): self.seen.append(str(func))
        return out


@pytest.mark.parametrize('options', [dict(), dict(opt='adam', clip=.5), dict(opt='sgd', nesterov=True), dict(model='cnn3', dropout=.2, augment='basic'),
                                     dict(augment='standard'), dict(augment='cifar100'), dict(augment='erasing'), dict(augment='affine')], ids=str)
def test_a_step_needs_no_double_precision(options):
    step = step_of(learner_of(create_run(**base | options)))
    with step.gradients(), Watch() as watch: step()
    assert not watch.seen


def test_a_scaled_loss_needs_no_double_precision():
    from imgstudy.training.loss_scale import Scale
    grads = [torch.full((4,), 3.)]
    with Watch() as watch: Scale(torch.device('cpu'), first=2.**16).unscale(grads)
    assert not watch.seen and torch.equal(grads[0], torch.full((4,), 3/2.**16))


@pytest.mark.parametrize('beta', [.999, .9, .95, .85, 0.])
def test_the_bias_of_adam_is_known_to_seven_digits(beta):
    "1 - beta**n in single precision, for 200,000 steps: as the mean of gradients that are all one."
    from imgstudy.training.step import adam_update
    for n in (1, 2, 10, 1000, 200_000):
        p, one = torch.zeros(1), torch.ones(1)
        state = dict(step=torch.tensor([n - 1.]), exp_avg=torch.zeros(1), exp_avg_sq=torch.zeros(1))
        mom = torch.tensor(beta)
        adam_update(p, one, state, torch.tensor(1.), mom, 0.)
        mean, square = 1 - mom.double(), 1 - .999
        exact = mean/(1 - mom.double()**n)/((square/(1 - .999**n))**.5 + 1e-8)
        assert -p.item() == pytest.approx(exact.item(), rel=5e-7)


class Generator:
    "A random generator of CUDA as PyTorch 2.11 has it: an error in a recording leaves its state in the middle of it."
    def __init__(self, state=None): self.state = state or dict(offset=8, recording=False)
    def clone_state(self): return Generator(dict(offset=self.state['offset'], recording=False))
    def graphsafe_get_state(self): return Generator(self.state)
    def graphsafe_set_state(self, other): self.state = other.state


class Allocator:
    "The memory of CUDA: pools that a recording allocates to, and those that are in use."
    def __init__(self, ends): self.open, self.used, self.ends = [], [], ends # ends: does PyTorch end it after an error?
    def begin(self, pool): self.open.append(pool); self.used.append(pool)
    def end(self, device, pool):
        if pool not in self.open: raise RuntimeError('not currently recording')
        self.open.remove(pool)
    def release(self, device, pool): self.used.remove(pool)


@pytest.fixture(params=[False, True], ids=['torch 2.11', 'torch 2.14'])
def cuda(monkeypatch, request):
    "What a recording uses of CUDA."
    from types import SimpleNamespace
    generator, memory = Generator(), Allocator(request.param)
    class Graph:
        def replay(self): pass
    class Recording:
        def __init__(self, graph, pool=None, stream=None, capture_error_mode=None): self.pool = pool or (0, 1)
        def __enter__(self): generator.state['recording'] = True; memory.begin(self.pool)
        def __exit__(self, kind, *_):
            if kind:
                if memory.ends: memory.end(0, self.pool)
                raise RuntimeError('CUDA error: operation failed due to a previous error during capture')
            memory.end(0, self.pool)
            generator.state['recording'] = False
    for name, value in dict(CUDAGraph=Graph, graph=Recording, default_generators=[generator], graph_pool_handle=lambda: (0, 7)).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, '_cuda_endAllocateToPool', memory.end, raising=False)
    monkeypatch.setattr(torch._C, '_cuda_releasePool', memory.release, raising=False)
    return SimpleNamespace(generator=generator, memory=memory, stream=SimpleNamespace(device_index=0))


@pytest.mark.parametrize('error', [RuntimeError('no value in a recording'), torch.OutOfMemoryError('full'), KeyboardInterrupt(), ValueError('mine')], ids=lambda e: type(e).__name__)
def test_an_error_in_a_recording_leaves_the_process_as_it_was(error, cuda, monkeypatch):
    "Without this, nothing in the process could draw a random number afterwards, and memory would stay in use."
    step = step_of(learner_of(create_run(**base)))
    def bad(self): raise error
    monkeypatch.setattr(Step, 'batch', bad)
    with pytest.raises(type(error), match=str(error)): step.record(cuda.stream)
    assert cuda.generator.state == dict(offset=8, recording=False)
    assert not cuda.memory.open and not cuda.memory.used


def test_the_error_of_the_step_is_the_one_that_is_raised(cuda, monkeypatch):
    "Also if it came of another error, or the recording ends without one of its own."
    step = step_of(learner_of(create_run(**base)))
    def bad(self):
        try: {}['a key']
        except KeyError: raise ValueError('mine')
    monkeypatch.setattr(Step, 'batch', bad)
    with pytest.raises(ValueError, match='mine'): step.record(cuda.stream)
    exit = torch.cuda.graph.__exit__
    monkeypatch.setattr(torch.cuda.graph, '__exit__', lambda self, kind, *_: exit(self, None))
    with pytest.raises(ValueError, match='mine'): step.record(cuda.stream)


@pytest.mark.parametrize('before', [True, False])
def test_no_garbage_is_collected_in_a_recording(before, cuda, monkeypatch):
    "A tensor, stream or recording that is freed in it may call the device, which ends it."
    import gc
    step, batch, seen = step_of(learner_of(create_run(**base))), Step.batch, []
    monkeypatch.setattr(Step, 'batch', lambda self: (seen.append(gc.isenabled()), batch(self))[1])
    (gc.enable if before else gc.disable)()
    try:
        with step.gradients(): step.record(cuda.stream)
        assert seen == [False] and gc.isenabled() is before
        monkeypatch.setattr(Step, 'batch', lambda self: 1/0)
        with pytest.raises(ZeroDivisionError): step.record(cuda.stream)
        assert gc.isenabled() is before
    finally: gc.enable()


def test_after_a_failed_recording_a_lane_goes_on_with_the_generator_that_replaced_its_own(cuda, monkeypatch):
    from contextlib import nullcontext
    from types import SimpleNamespace
    from imgstudy.training import streams
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: nullcontext())
    lane = SimpleNamespace(stream=cuda.stream, generator=Generator(dict(offset=4, recording=True)))
    outside = cuda.generator.state
    with streams._on_stream(lane):
        cuda.generator.graphsafe_set_state(cuda.generator.clone_state()) # as after an error
        new = cuda.generator.state
    assert cuda.generator.state is outside and lane.generator.state is new and not new['recording']


def host_draws(kind):
    "A transform of batches that draws on the CPU."
    import random
    import numpy as np
    from fastai.data.all import Transform
    from fastai.vision.augment import RandomErasing
    from fastai.vision.core import TensorImage
    draws = dict(python=random.random, numpy=np.random.rand, torch=lambda: torch.rand(1).item())
    class Darker(Transform):
        order = 50
        def encodes(self, x:TensorImage): return x*(.5 + .5*draws[kind]())
    return RandomErasing(p=.5) if kind == 'fastai' else Darker()


@pytest.mark.parametrize('kind', ['fastai', 'python', 'numpy', 'torch'])
def test_what_is_drawn_on_the_cpu_is_not_recorded(kind, cuda):
    learn = learner_of(create_run(**base))
    learn.dls.train.after_batch.add(host_draws(kind))
    step = step_of(learn)
    start = step.save()
    with step.gradients():
        once = [t.clone() for t in trial(step, step, start)]
        assert largest_difference(once, trial(step, step, start)) == 0 # drawn again, not drawn on
        with pytest.raises(CaptureFailed, match='random numbers on the CPU'): step.record(cuda.stream)


def replay_that(extra, monkeypatch):
    "Let a recording do what the step does, and then `extra`."
    from contextlib import nullcontext
    from types import SimpleNamespace
    def record(step, stream):
        def replay():
            with step.gradients(): step()
            extra(step)
        return SimpleNamespace(replay=replay)
    monkeypatch.setattr(capture, '_aside', lambda: nullcontext(SimpleNamespace(synchronize=lambda: None)))
    monkeypatch.setattr(Step, 'record', record)


def draw_alike(step): # as if the generator of the recording were not that of the steps
    torch.manual_seed(5)


@pytest.mark.parametrize('extra', [lambda step: torch.rand(1), draw_alike, lambda step: torch.set_rng_state(step.began), lambda step: torch.randperm(3)], ids='one more, another, none, some'.split(', '))
@pytest.mark.parametrize('augment', ['none', 'basic'])
def test_a_recording_that_leaves_the_generator_elsewhere_is_refused(extra, augment, monkeypatch):
    "Though weights, moments and losses of the compared steps agree."
    step = step_of(learner_of(create_run(**base | dict(augment='standard' if augment == 'basic' else augment, model='cnn3', dropout=.3))))
    step.began, before = torch.get_rng_state(), step.save()
    calls = []
    replay_that(lambda step: (calls.append(1), extra(step)) if len(calls) == 2 else calls.append(0), monkeypatch) # after the last
    with pytest.raises(CaptureFailed, match='draw other random numbers'): step.proven()
    after = step.save()
    assert largest_difference(before[0], after[0]) == 0 and torch.equal(before[2][2], after[2][2])


@pytest.mark.parametrize('options', [dict(), dict(model='cnn3', dropout=.3, augment='standard'), dict(augment='none')], ids=str)
def test_a_recording_that_draws_as_the_step_does_is_taken(options, monkeypatch):
    step = step_of(learner_of(create_run(**base | options)))
    replay_that(lambda step: None, monkeypatch)
    assert step.proven()[1] == 0


@pytest.mark.parametrize('augment', ['none', 'shift', 'basic', 'standard', 'erasing', 'affine', 'cifar100', 'cutout', 'resized_crop'])
def test_our_augmentations_draw_on_the_device_alone(augment):
    from imgstudy.training.step import host_random
    step = step_of(learner_of(create_run(**base | dict(augment=augment))))
    before = host_random()
    with step.gradients(): step()
    after = host_random()
    assert before[0] == after[0] and (before[1][1] == after[1][1]).all() # PyTorch's own is that of the device here


def fitted(run, how, monkeypatch, change=lambda learn: None, cbs=()):
    "The Learner of `run`, changed by `change`, after its epochs."
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    learn = learner_of(run)
    change(learn)
    fit(learn, run.recipe, lines=1, cbs=cbs)
    return learn


def gap(a, b): return max((x.float() - y.float()).abs().max().item() for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values()))


def opt_of(cls, **options): return lambda learn: setattr(learn, 'opt_func', partial(OptimWrapper, opt=partial(cls, **options)))


@pytest.mark.parametrize('change, why', [
    (lambda learn: setattr(learn, 'opt_func', Adam), 'the optimiser is Optimizer'),
    (opt_of(torch.optim.RMSprop), 'the optimiser is RMSprop'),
    (opt_of(torch.optim.AdamW, eps=1e-3), 'the optimiser is AdamW with settings of its own'),
    (opt_of(torch.optim.Adam, betas=(.9, .99)), 'the optimiser is Adam with settings of its own'),
    (opt_of(torch.optim.SGD, dampening=.5, momentum=.9), 'the optimiser is SGD with settings of its own'),
    (opt_of(torch.optim.Adam, decoupled_weight_decay=True), 'the optimiser is Adam with settings of its own'),
    (lambda learn: learn.model.register_forward_hook(lambda m, args, out: out*.5), 'a hook acts on each batch'),
    (lambda learn: next(learn.model.children()).register_full_backward_hook(lambda m, gi, go: None), 'a hook acts on each batch'),
    (lambda learn: next(learn.model.parameters()).register_hook(lambda g: g*2), 'a hook acts on each batch')])
def test_what_a_step_cannot_do_fastais_loop_does_and_says_why(change, why, monkeypatch):
    run = create_run(**base)
    loop, called = (fitted(run, how, monkeypatch, change) for how in ('0', 'call'))
    assert called.layout['not_captured'] == why and gap(loop, called) == 0


def test_the_hooks_of_autocast_are_no_reason(monkeypatch):
    learn = fitted(create_run(**base | dict(precision='bf16')), 'call', monkeypatch)
    assert learn.layout['not_captured'] == 'its steps are called one by one'


class Unused(torch.nn.Module):
    "A network with weights that are not used, or only now and then."
    def __init__(self, net, share=0.):
        super().__init__()
        self.net, self.extra, self.share = net, torch.nn.Linear(10, 10), share
    def forward(self, x):
        import random
        y = self.net(x)
        return self.extra(y) if self.training and self.share and random.random() < self.share else y

def with_unused(share=0.):
    def change(learn): learn.model = Unused(learn.model, share)
    return change


@pytest.mark.parametrize('options', [dict(), dict(opt='adam'), dict(opt='sgd', lr=.01), dict(model='cnn3', dropout=.2, subset=96), dict(ema=.9)], ids=str)
@pytest.mark.parametrize('share, why', [(0., 'some weights get no gradient'), (.5, 'the network draws random numbers on the CPU')])
def test_weights_without_a_gradient_do_not_decay(share, why, options, monkeypatch):
    run = create_run(**base | dict(wd=.5, decay_all=True) | options)
    loop, called = (fitted(run, how, monkeypatch, with_unused(share)) for how in ('0', 'call'))
    assert called.layout['not_captured'] == why and gap(loop, called) == 0


def test_frozen_weights_need_no_gradient(monkeypatch):
    learn = fitted(create_run(**base | dict(frozen_epochs=1)), 'call', monkeypatch)
    assert learn.layout['not_captured'] == 'its steps are called one by one'


@pytest.mark.parametrize('options', [dict(), dict(model='cnn_custom', augment='basic'), dict(model='cnn3', dropout=.2)], ids=str)
def test_looking_for_gradients_changes_nothing(options, monkeypatch):
    "Neither statistics nor what is drawn, in any generator."
    from imgstudy.training.step import host_random, same_random, without_gradient
    learn = learner_of(create_run(**base | options))
    learn.model.train()
    state, before = {k: v.clone() for k, v in learn.model.state_dict().items()}, host_random()
    assert without_gradient(learn) == []
    assert same_random(before, host_random()) and all(torch.equal(v, state[k]) for k, v in learn.model.state_dict().items())
    assert all(p.grad is None for p in learn.model.parameters())


@pytest.mark.parametrize('word', ['0', 'off', 'false', 'no', 'OFF', ' No '])
def test_words_that_switch_capture_off(word, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', word)
    assert [capture._how(SimpleNamespace(type=kind)) for kind in ('cpu', 'cuda', 'mps')] == ['', '', '']


@pytest.mark.parametrize('word', ['', '1', 'on', 'true', 'yes', 'Yes'])
def test_words_that_leave_it_on(word, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', word)
    assert [capture._how(SimpleNamespace(type=kind)) for kind in ('cpu', 'cuda', 'mps')] == ['', 'graph', 'call']
    monkeypatch.delenv('IMGSTUDY_CAPTURE')
    assert capture._how(SimpleNamespace(type='cuda')) == 'graph'


@pytest.mark.parametrize('word', ['of', 'none', 'graph', '2', 'eager'])
def test_an_unknown_word_is_refused_with_the_choices(word, monkeypatch):
    from imgstudy.core import StudyError
    with pytest.raises(StudyError) as e: fitted(create_run(**base), word, monkeypatch)
    said = str(e.value)
    assert '\n' not in said and repr(word) in said and all(w in said for w in ('IMGSTUDY_CAPTURE', 'call', 'off', 'on'))


@pytest.mark.parametrize('gaps, largest', [((.25, 0.), .25), ((0., .5), .5), ((0., 0.), 0.)])
@pytest.mark.parametrize('mixed', [False, True])
def test_a_resumed_training_keeps_the_largest_difference(gaps, largest, mixed, tmp_path, monkeypatch):
    "Also if its first epoch afterwards is not captured."
    from imgstudy.training.train import train
    from kills import kill_after
    replayed(monkeypatch, gaps)
    run, ready = create_run(**base | dict(epochs=4, subset=100)), capture.Engine.ready
    kill_after(1, monkeypatch, lambda: train(run, root=tmp_path))
    def sometimes(self): # as if a callback had objected
        if not mixed or self.learn.epoch != 1: return ready(self)
        self.why = 'peek acts on each batch'
        self.note()
    monkeypatch.setattr(capture.Engine, 'ready', sometimes)
    record = train(run, root=tmp_path)
    assert record.info['cost']['resumed'] == [1] and record.info['model']['capture_difference'] == largest


def test_another_training_of_a_learner_has_its_own_difference(monkeypatch):
    replayed(monkeypatch, [.25, 0.])
    learn = fitted(run := create_run(**base), '', monkeypatch)
    fit(learn, run.recipe, lines=1)
    assert learn.layout['capture_difference'] == 0.


class CountsBatches(StopOnNaN):
    "A callback of ours that does something more at each batch."
    name, n = 'counts_batches', 0
    def after_batch(self): self.n += self.training

class HalfClip(GradientClip):
    "fastai's, with something more."
    name = 'half_clip'
    def before_step(self): self.max_norm /= 2; super().before_step()

class LooksAtLoss(History):
    name = 'looks_at_loss'
    def after_loss(self): pass

class Replays(CountsBatches):
    "A subclass that also says what a replay means to it."
    name = 'replays'
    def replayed(self, done): self.n += len(done.losses)


@pytest.mark.parametrize('make', [CountsBatches, partial(HalfClip, 8.), LooksAtLoss])
def test_a_subclass_with_a_batch_event_of_its_own_is_called(make, monkeypatch):
    cb = make()
    assert capture.objects(cb) and not capture.objects(Replays())


def test_a_subclass_sees_each_batch(monkeypatch):
    cb = CountsBatches()
    learn = fitted(create_run(**base), 'call', monkeypatch, cbs=[cb])
    assert cb.n == 2*(200//32) and learn.layout['not_captured'] == 'counts_batches acts on each batch'


class Log(Callback):
    "Hears every event in one method."
    name = 'log'
    def __init__(self): self.events = []
    def __call__(self, event): self.events.append(event); return super().__call__(event)

class LogStop(StopOnNaN):
    "A callback of ours that does so."
    name = 'log'
    def __call__(self, event): vars(self).setdefault('events', []).append(event); return super().__call__(event)

class AnyEvent(Callback):
    "Has a method for whatever is asked for."
    name = 'log'
    def __init__(self): self.events = []
    def __getattr__(self, k): return (lambda: self.events.append(k)) if k.startswith(('before_', 'after_')) else super().__getattr__(k)


@pytest.mark.parametrize('how', ['0', 'call'])
@pytest.mark.parametrize('make', [Log, LogStop, AnyEvent])
def test_a_callback_that_hears_all_events_in_one_method_hears_them(make, how, monkeypatch):
    "As in plain fastai; also where it does not train on batches."
    learn = learner_of(run := create_run(**base | dict(epochs=1)))
    plain, ours = make(), make()
    from fastai.basics import Learner
    twin = Learner(learn.dls, learn.model, loss_func=learn.loss_func, cbs=[plain])
    with twin.no_bar(), twin.no_logging(): twin.fit(1)
    ours.run_train = '__call__' not in vars(make)
    learn = fitted(run, how, monkeypatch, cbs=[ours])
    assert set(plain.events) - set(ours.events) <= {'after_create'} and ours.events.count('after_batch') == plain.events.count('after_batch') > 6
    if how == 'call': assert learn.layout['not_captured'] == 'log acts on each batch'


class LastBatch(Callback):
    "Reads the last training batch once it is over, and keeps what it read."
    def __init__(self, *events, first=0):
        self.seen, self.first = [], first
        for e in events: setattr(self, e, self.read)
    def read(self):
        if self.epoch < self.first: return
        l = self.learn
        self.seen.append((l.loss, l.loss_grad, l.pred, *l.xb, *l.yb))


def same_batches(a, b):
    assert len(a) == len(b) > 0
    for p, q in zip(a, b):
        for t, u in zip(p, q, strict=True):
            assert type(t) is type(u) and t.shape == u.shape and t.dtype == u.dtype
            assert torch.allclose(t.detach(), u.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('events, options', [
    (('after_train',), dict()), (('after_train',), dict(first=1)), (('before_validate',), dict()), (('after_train',), dict(augment='basic', clip=.5)),
    (('after_train',), dict(precision='bf16')), (('after_train', 'after_epoch', 'before_epoch'), dict(valid=0, first=1)), (('after_epoch', 'after_fit'), dict())], ids=str)
def test_after_an_epoch_the_last_batch_is_there(events, options, monkeypatch):
    "For callbacks of a user, as fastai's loop leaves it: the epoch is done by steps nevertheless."
    options = dict(options)
    first, seen = options.pop('first', 0), []
    for how in ('0', 'call'):
        cb = LastBatch(*events, first=first)
        learn = fitted(create_run(**base | options), how, monkeypatch, cbs=[cb])
        seen.append(cb.seen)
    assert learn.layout['not_captured'] == 'its steps are called one by one'
    if options.get('precision') == 'bf16': seen = [[row[3:] for row in rows] for rows in seen] # the rest differs by rounding
    same_batches(*seen)


def test_after_an_epoch_of_a_stack_the_last_batch_is_there(monkeypatch):
    from imgstudy.training.stacked import fit_stacked, stack_learners
    runs, seen = [create_run(**base | dict(seed=s)) for s in range(2)], []
    for how in ('0', 'call'):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        cb = LastBatch('after_train')
        fit_stacked(stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs]), lines=1, cbs=[cb])
        seen.append(cb.seen)
    same_batches(*seen)


class StopAt(Callback):
    "Ends the training in the middle of an epoch, as a deadline does, and reads the last batch."
    def __init__(self, step): self.step = step
    def stop(self):
        if self.epoch == 1 and self.iter + 1 == self.step: raise CancelFitException
    def after_batch(self): self.stop()
    def after_portion(self): self.stop()
    def replayed(self, done): pass
    def after_cancel_fit(self): self.seen = float(self.learn.loss), *self.learn.xb, *self.learn.yb


def test_after_a_stop_within_an_epoch_the_last_batch_is_there(monkeypatch):
    monkeypatch.setattr(capture.Engine, 'portion', 2)
    (a, *x), (b, *y) = (fitted(create_run(**base), how, monkeypatch, cbs=[stop := StopAt(4)]) and stop.seen for how in ('0', 'call'))
    assert a == pytest.approx(b, abs=1e-4) and all(torch.equal(p, q) for p, q in zip(x, y))


class At(Callback):
    "Do something before the second epoch."
    def __init__(self, do): self.do = do
    def before_epoch(self):
        if self.epoch == 1: self.do(self.learn)


def other_images(learn):
    run = create_run(**base | dict(subset=120, seed=3))
    learn.dls = create_dls(run, load_data(run))

def other_weights(learn):
    for p in learn.model.parameters(): p.data = p.data*.5

changes = dict(wd=lambda learn: learn.opt.set_hypers(wd=5.), loss=lambda learn: setattr(learn, 'loss_func', partial(torch.nn.functional.cross_entropy, label_smoothing=.3)),
               clip=lambda learn: setattr(next(cb for cb in learn.cbs if isinstance(cb, GradientClip)), 'max_norm', .01), images=other_images, weights=other_weights,
               smoothing=lambda learn: setattr(learn.loss_func.func, 'label_smoothing', .4))


@pytest.mark.parametrize('name', changes)
def test_what_changes_between_epochs_changes_the_step(name, monkeypatch):
    "The steps end where fastai's loop ends."
    run = create_run(**base | dict(clip=.5, opt='sgd', lr=.01))
    loop, called, plain = (fitted(run, how, monkeypatch, cbs=[At(do)]) for how, do in (('0', changes[name]), ('call', changes[name]), ('0', lambda learn: None)))
    assert gap(loop, called) < 1e-5 < gap(loop, plain)


def replayed(monkeypatch, gaps=(0.,)):
    "Let steps be recorded, as if there were a GPU; the list of what was recorded. The first recordings differ by `gaps` from the step."
    made, gaps = [], list(gaps)
    def proven(step):
        made.append(step)
        start = step.save()
        with step.gradients(): step() # as the proof does
        step.restore(start)
        return step.__call__, gaps.pop(0) if gaps else 0.
    monkeypatch.setattr(capture, '_how', lambda device: 'graph')
    monkeypatch.setattr(Step, 'proven', proven)
    monkeypatch.setattr(capture, 'nullcontext', lambda: capture_now(made))
    return made


def capture_now(made): return made[-1].gradients()


def dropout_to(p):
    def change(learn):
        for m in learn.model.modules():
            if hasattr(m, 'p'): m.p = p
    return change


@pytest.mark.parametrize('do, n', [(lambda learn: None, 1), (dropout_to(.5), 2), (changes['wd'], 2), (changes['loss'], 2), (lambda learn: next(learn.model.parameters()).requires_grad_(True), 1)])
def test_a_step_is_recorded_anew_only_if_it_changes(do, n, monkeypatch):
    made = replayed(monkeypatch)
    learn = fitted(create_run(**base | dict(model='cnn3', dropout=.2, epochs=4, subset=128)), '', monkeypatch, cbs=[At(do)])
    assert len(made) == n and learn.layout['captured'] is True


def tfm_of(learn, name): return next(f for f in learn.dls.train.after_batch.fs if type(f).__name__ == name)

def set_tfm(name, k, new):
    "A function that sets the attribute `k` of a transform of batches to `new` of what it is."
    def change(learn):
        tfm = tfm_of(learn, name)
        setattr(tfm, k, new(getattr(tfm, k)))
    return change

class Tinted(Transform):
    "A transform of a user, with settings of many kinds."
    order, strength = 50, 1.
    def __init__(self):
        self.by, self.range, self.names, self.array = torch.full((3, 1, 1), .9), dict(low=[.5, (.6, .7)]), {'a'}, np.array([1., 2.])
        self.func, self.inner, self.seen = partial(torch.mul, other=1.), SimpleNamespace(gain=1.), None
    def encodes(self, x:TensorImage):
        self.seen = x*self.by*self.range['low'][0] # as fastai's transforms keep what they drew
        return self.func(self.seen)*self.inner.gain*self.strength

def tinted(learn): learn.dls.train.after_batch.add(Tinted())

def change_tinted(do): return lambda learn: do(tfm_of(learn, 'Tinted'))

@pytest.mark.parametrize('do', [
    set_tfm('BatchErasing', 'scale', lambda v: (.3, .33)), set_tfm('BatchErasing', 'p', lambda v: 1.), set_tfm('Normalize', 'mean', lambda v: v + 1),
    change_tinted(lambda t: setattr(t, 'by', torch.full((3, 1, 1), .5))), change_tinted(lambda t: t.by.mul_(.5)),
    change_tinted(lambda t: t.range.update(low=[.4, (.6, .7)])), change_tinted(lambda t: t.range['low'].__setitem__(1, (.6, .8))), change_tinted(lambda t: t.names.add('b')),
    change_tinted(lambda t: t.array.__setitem__(0, 3.)), change_tinted(lambda t: setattr(t, 'func', partial(torch.mul, other=.5))),
    change_tinted(lambda t: setattr(t, 'func', torch.neg)), change_tinted(lambda t: setattr(t.inner, 'gain', .5)), change_tinted(lambda t: setattr(t, 'strength', .5)),
    lambda learn: learn.dls.train.after_batch.add(Tinted()), lambda learn: setattr(learn.model, 'anything', torch.ones(2))])
def test_settings_of_any_kind_are_recorded_anew_when_they_change(do, monkeypatch):
    made = replayed(monkeypatch)
    for cbs, n in (([], 1), ([At(do)], 2)):
        made.clear()
        fitted(create_run(**base | dict(augment='erasing', epochs=4, subset=96)), '', monkeypatch, tinted, cbs)
        assert len(made) == n


def test_the_settings_of_a_member_of_a_stack_too(monkeypatch):
    "The network of a stack, and the decay of its optimiser, are kept out of sight of PyTorch."
    from imgstudy.training.stacked import fit_stacked, stack_learners
    made = replayed(monkeypatch)
    def longer(learn): learn.opt.opt.wd = learn.opt.opt.wd*3
    for do, n in ((lambda learn: None, 1), (lambda learn: dropout_to(.5)(SimpleNamespace(model=learn.model.one[0])), 2), (longer, 2)):
        runs = [create_run(**base | dict(seed=s, model='cnn3', dropout=.2, subset=96, epochs=3, augment='erasing')) for s in range(2)]
        made.clear()
        fit_stacked(stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs]), lines=1, cbs=[At(do)])
        assert len(made) == n


@pytest.mark.parametrize('options', [dict(augment='standard', ema=.9), dict(augment='cifar100', model='vit'), dict(model='convnext', augment='affine', clip=1.),
                                     dict(augment='erasing', model='cnn_custom', opt='sgd', lr=.01)], ids=str)
def test_a_training_of_ours_is_recorded_once(options, monkeypatch):
    made = replayed(monkeypatch)
    fitted(create_run(**base | dict(epochs=3, subset=96) | options), '', monkeypatch)
    assert len(made) == 1


def test_the_record_has_the_largest_difference_of_all_recordings(monkeypatch):
    replayed(monkeypatch, [.25, 0.])
    learn = fitted(create_run(**base | dict(model='cnn3', dropout=.2, subset=128)), '', monkeypatch, cbs=[At(dropout_to(.5))])
    assert learn.layout['capture_difference'] == .25


@pytest.fixture
def ticks(monkeypatch):
    "A clock on which each step takes a second; the list of steps done."
    from types import SimpleNamespace
    from imgstudy.training import checkpoint
    done, call = [], Step.__call__
    monkeypatch.setattr(Step, '__call__', lambda self: (done.append(1), call(self)) and None)
    monkeypatch.setattr(checkpoint, 'time', SimpleNamespace(time=lambda: float(len(done)), perf_counter=checkpoint.time.perf_counter))
    return done


def paused(run, when, tmp_path, monkeypatch, how='call'):
    "What is said when `run` is ended by a deadline on the clock of `ticks`."
    from imgstudy.training.checkpoint import Checkpoint, Deadline, Paused
    with pytest.raises(Paused) as e: fitted(run, how, monkeypatch, cbs=[Checkpoint(tmp_path/'.c.checkpoint', {}), Deadline(when)])
    return str(e.value)


@pytest.mark.parametrize('n, when', [(18, 6), (18, 17), (5, 2), (40, 21), (70, 66)])
def test_a_deadline_within_an_epoch_of_called_steps_ends_it(n, when, ticks, tmp_path, monkeypatch):
    "However few steps an epoch has, and however long each takes."
    run = create_run(**base | dict(bs=8, subset=8*n, epochs=1))
    assert 'Paused with no epoch kept' in paused(run, when + .5, tmp_path, monkeypatch)
    assert len(ticks) <= when + 1 # before it, where it is seen that the epoch is too long


def test_an_epoch_that_is_too_long_is_given_up_early(ticks, tmp_path, monkeypatch):
    run = create_run(**base | dict(bs=8, subset=320, epochs=2))
    assert 'an epoch takes about 40' in paused(run, 30., tmp_path, monkeypatch) and len(ticks) < 15


@pytest.mark.parametrize('n', [4, 18, 40, 100])
def test_a_deadline_within_an_epoch_of_replays_ends_it(n, ticks, tmp_path, monkeypatch):
    "The device is asked now and then, at most an eighth of an epoch too late."
    replayed(monkeypatch)
    run = create_run(**base | dict(bs=8, subset=8*n, epochs=1))
    proof, when = 1, n//2
    paused(run, proof + when + .5, tmp_path, monkeypatch, '')
    assert len(ticks) - proof - when <= max(1, n//8)


def test_a_stack_is_ended_by_a_deadline_within_an_epoch(ticks, tmp_path, monkeypatch):
    from imgstudy.training.checkpoint import Checkpoint, Deadline, Paused
    from imgstudy.training.stacked import fit_stacked, stack_learners
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    runs = [create_run(**base | dict(seed=s)) for s in range(2)]
    stack = stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs])
    with pytest.raises(Paused): fit_stacked(stack, lines=1, cbs=[Checkpoint(tmp_path/'.c.checkpoint', {}), Deadline(2.5)])
    assert len(ticks) == 3


def test_who_sets_the_portion_has_it(monkeypatch):
    "What times steps counts on it."
    from imgstudy.training.train_stacked import Portions
    class Looks(Callback):
        def __init__(self): self.at = []
        def after_portion(self): self.at.append(self.iter + 1)
    for how, portion, expected in (('call', 3, [3, 6]), ('', 4, [4]), ('call', None, [1, 2, 3, 4, 5, 6]), ('', None, [1, 2, 3, 4, 5, 6])):
        if not how: replayed(monkeypatch)
        cb = Looks()
        fitted(create_run(**base | dict(epochs=1)), how, monkeypatch, cbs=[cb, *([Portions(portion)] if portion else [])])
        assert cb.at == expected


@pytest.mark.parametrize('a, b, far', [([3, 4], [3, 6], 2.), ([2**40], [2**40 + 1], 1.), ([True, False], [True, True], 1.), ([5], [5], 0.)])
def test_whole_numbers_are_compared_too(a, b, far):
    assert largest_difference([torch.tensor(a)], [torch.tensor(b)]) == far


@pytest.mark.parametrize('share, used, gb, fits', [(1., 0, 9, True), (.1, 0, 6, False), (.1, 0, 4, True), (.1, 7, 2, False), (.5, 0, 12, False)])
def test_images_are_kept_within_the_share_of_the_card(share, used, gb, fits, monkeypatch):
    "A card of 100 GB, 20 of them free: half of what this process may take."
    from imgstudy.data.loaders import _fits
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (20e9, 100e9))
    monkeypatch.setattr(torch.cuda, 'get_per_process_memory_fraction', lambda device=None: share)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device=None: used*1e9)
    assert _fits(gb*1e9, torch.device('cuda')) is fits
    assert _fits(gb*1e12, torch.device('mps'))


@pytest.mark.parametrize('saved, here, restored', [(2, 1, 1), (8, 2, 2), (1, 4, 1), (2, 0, None)])
def test_a_training_goes_on_where_there_are_fewer_gpus(saved, here, restored, monkeypatch):
    import random
    from types import SimpleNamespace
    from imgstudy.training.checkpoint import random_states, restore_random_states
    dls, seen = SimpleNamespace(loaders=[SimpleNamespace(rng=random.Random(0))]), []
    states = random_states(dls) | dict(cuda=[torch.full((16,), i, dtype=torch.uint8) for i in range(saved)])
    def set_all(states):
        if len(states) > here: raise RuntimeError('invalid device ordinal')
        seen.append(len(states))
    monkeypatch.setattr(torch.cuda, 'set_rng_state_all', set_all)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: here)
    restore_random_states(states, dls)
    assert seen == ([restored] if restored else [])


def test_a_stack_that_goes_on_keeps_its_layout(tmp_path, monkeypatch):
    "Whatever would be measured now: else its own checkpoint would be refused."
    from kills import Kill, Killed
    from imgstudy.training import train_stacked as module
    from imgstudy.training.checkpoint import Checkpoint
    runs = [create_run(**base | dict(seed=s, epochs=3, subset=100)) for s in range(2)]
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: dict(channels_last=True, valid_apart=True))
    whole = module.train_stacked(runs, root=tmp_path/'whole')
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'every', 0)
        m.setattr(module, 'event_cbs', lambda *args, **kwargs: [Kill(1)])
        with pytest.raises(Killed): module.train_stacked(runs, root=tmp_path/'cut')
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: dict(channels_last=False, valid_apart=False))
    cut = module.train_stacked(runs, root=tmp_path/'cut')
    for a, b in zip(whole, cut):
        assert b.info['cost']['resumed'] == [1] and b.info['model']['channels_last'] is True and b.info['model']['valid_apart'] is True
        assert a.history.drop(columns='seconds').equals(b.history.drop(columns='seconds'))


@pytest.mark.parametrize('model', ['lenet5', 'cnn3', 'vit', 'resnet9'])
def test_a_stack_of_one_is_not_put_through_vmap(model, monkeypatch):
    import copy
    from imgstudy.models.register import create_model
    from imgstudy.training.stacked import Stack
    torch.manual_seed(0)
    net = create_model(model, 3, size=32)
    alone, stack, x = copy.deepcopy(net).train(), Stack([net]).train(), torch.randn(1, 4, 3, 32, 32)
    def refused(*args, **kwargs): raise AssertionError('vmap')
    monkeypatch.setattr(torch, 'vmap', refused)
    torch.manual_seed(1)
    logits = stack(x)
    logits.sum().backward()
    torch.manual_seed(1)
    assert torch.allclose(alone(x[0]), logits[0], atol=1e-5) and stack.flat.grad.abs().sum() > 0
    for k, v in alone.state_dict().items(): assert torch.allclose(v.float(), stack.member(0)[k].float(), atol=1e-6), k # also the statistics


class OnCard:
    "A loss on a GPU."
    device = torch.device('cuda')
    def __init__(self, value): self.value = torch.tensor(value)
    def detach(self): return self.value


def watched(values, loss=OnCard):
    "A `StopOnNaN` that has seen an epoch of losses with these values in fastai's loop, and how often it has looked at them."
    from types import SimpleNamespace
    looks = []
    class Stop(StopOnNaN):
        def check_finite(self): looks.append(len(self.seen)); super().check_finite()
    stop = Stop()
    stop.learn = SimpleNamespace(training=True, epoch=2, n_epoch=3, lr=.1, recorder=SimpleNamespace(lrs=[.1]*1000), opt=SimpleNamespace(hypers=[dict(lr=.1)]))
    stop.before_train()
    for i, v in enumerate(values):
        stop.learn.train_iter, stop.learn.loss = i, loss(v)
        stop.after_loss()
    return stop, looks


@pytest.mark.parametrize('n', [1, 63, 64, 65, 300])
def test_on_a_card_no_loss_is_looked_at_within_an_epoch(n):
    "However many batches it has: looking waits for the device."
    stop, looks = watched([.5]*n)
    assert looks == []
    stop.after_train()
    assert looks == [n] and stop.error is None


@pytest.mark.parametrize('n, bad', [(1, 0), (64, 3), (200, 70), (200, 199)])
def test_on_a_card_the_first_bad_step_is_named_after_the_epoch(n, bad):
    from fastai.basics import CancelFitException
    stop, looks = watched([.5]*bad + [float('nan')]*(n - bad))
    with pytest.raises(CancelFitException): stop.after_train()
    assert looks == [n] and f'became nan at step {bad + 1} (epoch 3 of 3)' in str(stop.error)


def test_on_a_cpu_a_bad_loss_ends_the_training_at_once():
    from fastai.basics import CancelFitException
    with pytest.raises(CancelFitException): watched([.5, float('inf'), .5], torch.tensor)
