"Captions of the full report: how large the trainings are that a figure or table shows, and which weights were tested."
import dataclasses, html, json, os, re
import matplotlib.pyplot as plt, pytest
from IPython.display import HTML
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import general, overview, sections
from imgstudy.report.findings import training_scale
from imgstudy.report.overview import curve_columns, even_groups, kept_words, study_groups, training_size
from imgstudy.report.sections import curves_figure, our_protocol, study_section
from imgstudy.stats.seeds import synth_probes, synth_record
from imgstudy.study.studies import studies, study_runs

size = re.compile(r'[\d,]+( to [\d,]+)? images, \d+( to \d+)? pixels')


@pytest.fixture
def captions(monkeypatch):
    "The captions of a study's section, without those of tables that have a column for the size."
    found = []
    monkeypatch.setattr(sections, 'as_figure', lambda fig, alt, caption='': found.append(caption) or HTML(''))
    monkeypatch.setattr(sections, 'as_table', lambda t, caption='', **kw: found.append(caption) or HTML(''))
    def of(study):
        with records_in(committed_records()): study_section(study)
        plt.close('all')
        return [c for c in found if not c.startswith(('Published and ours', 'Our results', 'The trainings of each row'))]
    return of


@pytest.mark.parametrize('study', ['cats_dogs_optimizers', 'cifar100_schedules', 'cifar10_cnn_batch_lr', 'stl5_transfer'])
def test_every_caption_says_how_large_the_trainings_are(captions, study):
    said = captions(study)
    assert len(said) > 5 and [c for c in said if not size.search(c)] == []


def test_losses_of_folds_are_printed(captions):
    assert [c.split(',')[0] for c in captions('cats_dogs_optimizers') if 'fold by fold' in c] == ['Zero-one loss', 'Training loss of the epoch kept']


def groups(**sizes): return {k: [synth_record(0, .8, size=n, epochs=5)] for k, n in sizes.items()}
@pytest.mark.parametrize('sizes, words', [(dict(a=32, b=32), 'Trained on 8,000 images, 32 pixels, 5 epochs.'),
    (dict(a=32, b=64, c=32), 'Trained on 8,000 images, 32 pixels, 5 epochs (a, c); 8,000 images, 64 pixels, 5 epochs (b).'),
    (dict(a=32, b=40, c=48, d=64), 'Rows differ in size: 8,000 images, 32 to 64 pixels, 5 epochs.'), ({}, '')])
def test_sizes_in_words(sizes, words): assert training_size(groups(**sizes)) == words


def curves(valid, train):
    "A record with the history of a training with or without validation images, whose training accuracy was kept or not."
    r = synth_record(0, .8, valid=None if valid else 0)
    h = r.history.assign(train_loss=[2., 1.], train_accuracy=[.3, .4], valid_loss=[2., 1.], lr=.1)
    if not valid: h[['valid_loss', 'valid_accuracy']] = float('nan')
    return dataclasses.replace(r, history=h if train else h.drop(columns='train_accuracy'))


@pytest.mark.parametrize('valid, train, panels', [(True, True, 4), (True, False, 3), (False, True, 2), (False, False, 1)])
def test_curves_and_their_words_are_of_the_same(valid, train, panels):
    shown = {'a net': [curves(valid, train)]}
    page = curves_figure(shown).data
    alt, caption = re.search(r'alt="([^"]*)"', page)[1], re.search('<figcaption>(.*)</figcaption>', page)[1]
    titles = [*curve_columns(shown).values()]
    assert len(titles) == panels and alt.startswith(', '.join(titles).capitalize()) and 'there is nothing' not in alt
    assert ('In validation accuracy a net ends' in alt) == valid and ('In training accuracy a net ends highest, at 0.400' in alt) == train
    assert ('no images validate' in caption) == (not valid) and ('loss and accuracy are of augmented images' in caption) == train


def test_curves_of_all_images_are_of_training_accuracy():
    with records_in(committed_records()): alt = curves_figure(even_groups('cifar100_baseline')).data
    assert 'training accuracy' in alt and 'alidation accuracy' not in alt


def test_both_accuracies_of_mobilenet_are_drawn():
    with records_in(committed_records()): drawn = curve_columns(even_groups('dog_breeds'))
    assert {'train_accuracy', 'valid_accuracy'} <= {*drawn}


stops, blind, last = synth_record(0, .8, patience=3), synth_record(0, .8, valid=0), synth_record(0, .8)
@pytest.mark.parametrize('records, words', [
    ([stops, stops], 'Tested once, with the weights after the epoch that was best on validation images.'),
    ([blind], 'Tested once, with the weights after the last epoch, without validation images.'),
    ([last], 'Tested once, with the weights after the last epoch.'),
    ([blind, stops, blind], 'after the last epoch, without validation images (2 of 3 rows); after the epoch that was best on validation images (1 of 3 rows).'),
    (synth_probes([.8, .9])[:1], 'Tested once, with the weights fitted with the regularisation that was best on validation images.'), ([], '')])
def test_who_chose_the_weights(records, words): assert kept_words(records).endswith(words)


@pytest.mark.parametrize('study', studies)
def test_protocols_choose_on_images_that_there_are(study):
    with records_in(committed_records()):
        runs, said = [rs[0].run for rs in study_groups(study).values()], our_protocol(study)
    assert ('without validation images' in said) == any(r.valid == 0 for r in runs)
    assert ('the epoch that was best on validation images' in said) == any(bool(r.recipe.patience) for r in runs)


def test_choices_are_counted():
    said = general._selection([stops, blind, *synth_probes([.8, .9]), last])
    assert 'ours are chosen' not in said and '5 trainings' in said and ' of 3; the other 2 kept the last epoch, 1 of them' in said


def test_a_source_other_than_the_one_shown_is_named():
    with records_in(committed_records()):
        said, = overview.other_sources('stl5_transfer')
        page = ''.join(p.data for p in sections.published_and_ours(sections.results_table('stl5_transfer'), 'stl5_transfer'))
    assert said.startswith('"transferred" did not begin from') and '4,900 images' in said and said.split(':')[0] in html.unescape(page)


@pytest.mark.parametrize('scale', ['small', 'full'])
def test_nothing_is_said_of_a_source_that_is_shown(monkeypatch, scale):
    monkeypatch.setattr(overview, 'scale_runs', lambda study, *args: study_runs(study, scale))
    with records_in(committed_records()): assert overview.other_sources('stl5_transfer') == []


sides = {'cats_vs_dogs': 96, 'stanford_dogs20': 160, 'cifar10': 32, 'cifar100': 32}


@pytest.mark.parametrize('study', ['transfer', 'label_efficiency'])
def test_an_enlargement_says_from_what(study):
    "Images of 224 pixels that were 160 are not what a camera takes: each caption says so, with the size of the copies."
    with records_in(committed_records()):
        for name, records in study_groups(study).items():
            r = records[0]
            larger = r.run.size > sides[r.run.dataset]
            words = f'{r.run.size} pixels enlarged from {sides[r.run.dataset]}, ' if larger else f'{r.run.size} pixels, '
            assert words in training_size({name: records}) and words in training_scale(r), name


def test_an_enlargement_of_several_rows(tmp_path):
    with records_in(committed_records()):
        said = {s: training_size(study_groups(s)) for s in ('transfer', 'tuned')}
    assert 'pixels enlarged from 32 to 160, 2 epochs or a probe' in said['transfer']
    assert ' pixels, some enlarged from 32, ' in said['tuned']
    with records_in(tmp_path): assert 'enlarged' not in training_size({'a': [synth_record(0, .8, size=999)]})  # no exhibit there


def test_images_other_than_those_that_were_measured(tmp_path):
    "Another copy of the data set, and images of several sizes: nothing is said of what is not known."
    r, file = synth_record(0, .8, size=64), tmp_path/'data/digits.json'
    size = lambda least, most: dict.fromkeys(('width', 'height'), dict(least=least, most=most))
    file.parent.mkdir()
    for k, (images, sizes, said) in enumerate([(r.info['data'].get('fingerprint'), size(8, 8), True), ('other', size(8, 8), False),
                                               (r.info['data'].get('fingerprint'), size(8, 9), False)]):
        file.write_text(json.dumps(dict(fingerprint=images, sizes=sizes)))
        os.utime(file, (k, k))
        with records_in(tmp_path): assert ('64 pixels enlarged from 8, ' in training_size({'a': [r]})) == said
