"A report of one's own trainings: what is theirs, under the names they know, and nothing of the five studies or of their folders."
import re
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.records.record import read_records
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "The text of the page on two folders of images, one of them trained in two ways."
    top, rng = tmp_path_factory.mktemp('home of Jane'), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('HOME', str(top)); m.setenv('IMGSTUDY_RUNS', str(top/'runs')); m.setenv('IMGSTUDY_CACHE', str(top/'cache'))
        for name, classes in dict(garden=('rose', 'weed <b>'), pets=('cat', 'dog', 'hen')).items():
            for k, c in enumerate(classes):
                (top/'private'/name/c).mkdir(parents=True)
                for i in range(14): Image.fromarray(rng.integers(60*k, 60*k + 130, (20, 20, 3), np.uint8)).save(top/'private'/name/c/f'{i}.png')
        run = lambda name, **kw: create_run(**dict(dataset=f"folder:{top/'private'/name}", model='lenet5', size=16, epochs=1) | kw)
        for r in (run('garden'), run('garden', seed=1), run('garden', model='mlp_s'), run('pets')): train(r)
        m.setattr('sys.argv', ['imgstudy', 'report', '--root', str(top/'runs'), '--out', str(top/'mine.html')])
        cli.main()
        yield (top/'mine.html').read_text(encoding='utf-8'), read_records(top/'runs'), top


def test_it_has_its_answers_and_every_training(page):
    text, records, _ = page
    assert re.search('garden: of 2 ways to train, the best on validation images is', text) and 'pets: LeNet-5 from scratch' in text
    for r in records: assert f'runs/{r.path.name}/record.json' in text
    assert 'weed &lt;b&gt;' in text and 'weed <b>' not in text


@pytest.mark.parametrize('words', ['five studies', 'Our own studies', 'references.csv', 'published', 'stanford_dogs', 'cifar', 'STL-10', 'Contamination', 'missing',
                                   'Trainings of no study', 'Demonstrations', 'folder:rose', 'folder:cat', 'home of Jane', 'private/'])
def test_it_has_nothing_that_is_not_theirs(words, page):
    shown = re.sub('<pre.*?</pre>', '', page[0], flags=re.S) # the code of the page
    assert words not in shown and str(page[2]) not in page[0]


def test_no_heading_without_a_section(page):
    headings = re.findall('<h2 id=[^>]*>(.*?)</h2>', page[0])
    assert headings == ['The answer', 'What to doubt', 'The best of each data set', 'How it was learnt, and where it errs', 'What it costs', 'Every training']


def test_beside_records_of_a_study(page, tmp_path, monkeypatch):
    "The images of one's own come first, by name, and no study has a section."
    import shutil
    from imgstudy.records.find import sound_records
    from imgstudy.report.general import planned_runs
    from imgstudy.report.own import own_answers, own_best_table, own_page, own_titles
    _, own, top = page
    monkeypatch.setenv('IMGSTUDY_CACHE', str(top/'cache'))
    committed = [p for p in sorted((Path(__file__).parent.parent/'report/records').glob('cifar10-*')) if p.name in planned_runs()][:2]
    for path in [r.path for r in own] + committed: shutil.copytree(path, tmp_path/'runs'/path.name)
    records, _ = sound_records(tmp_path/'runs')
    assert own_page(records) and len(records) == len(own) + 2
    assert [*own_titles(records).values()] == ['garden', 'pets', 'CIFAR-10'] and [*dict.fromkeys(own_best_table(records).index)] == ['garden', 'pets', 'CIFAR-10']
    assert [a.split(':')[0] for a in own_answers(records)][:3] == ['garden', 'pets', 'CIFAR-10']
    assert not own_page([r for r in records if r.run.dataset == 'cifar10']), 'the page of the studies'
    monkeypatch.setattr('sys.argv', ['imgstudy', 'report', '--root', str(tmp_path/'runs'), '--out', str(tmp_path/'mixed.html')])
    cli.main()
    text = (tmp_path/'mixed.html').read_text(encoding='utf-8')
    assert re.findall('<h2 id=[^>]*>(.*?)</h2>', text) == ['The answer', 'What to doubt', 'The best of each data set', 'How it was learnt, and where it errs', 'What it costs',
                                                          'Every training']
    assert text.index('garden') < text.index('CIFAR-10') and all(r.path.name in text for r in records)


@pytest.mark.parametrize('part, shown', [('UCI handwritten digits: ways to train', 'UCI handwritten digits: ways to train'), ('photos of digits', 'photos of digits'),
                                         ('<td>digits</td>', '<td>UCI handwritten digits</td>'), ('<a href="digits-lenet5-s0-1/record.json">it</a>', '<a href="digits-lenet5-s0-1/record.json">it</a>')])
def test_a_name_that_is_a_word_is_replaced_where_it_stands_alone(part, shown):
    from IPython.display import HTML
    from imgstudy.report.own import with_titles
    from imgstudy.stats.seeds import synth_record
    assert with_titles(HTML(part), [synth_record(0, .8)]).data == shown
