"The report in a real browser: it loads without errors and from nothing else, its links lead somewhere, it fits, prints, and can be read."
import base64
from pathlib import Path
import pytest
reason = "needs a driver for the browser: pip install 'imgstudy[browser]'"
sync_api = pytest.importorskip('playwright.sync_api', reason=reason)
pytest.importorskip('axe_playwright_python', reason=reason)
from browser import (bad_contents, bad_details, bad_ids, bad_images, find_chromium, inaccessible, launch, open_page, show, too_wide,
                     too_wide_in_print, touching_labels)

pages = [Path(__file__).parent.parent/f'report/{name}.html' for name in ('index', 'full', 'runs')]


@pytest.fixture(scope='module')
def browser():
    if not (path := find_chromium()):
        pytest.skip('needs a browser: apt install chromium, or the path of one in IMGSTUDY_CHROMIUM')
    with sync_api.sync_playwright() as p:
        browser = launch(p, path)
        yield browser
        browser.close()


@pytest.fixture(scope='module', params=pages, ids=lambda p: p.stem)
def report(request):
    "A page of the report."
    if not request.param.exists(): pytest.skip(f'there is no report/{request.param.name} yet: make report')
    return request.param


@pytest.fixture(scope='module')
def opened(browser, report):
    "The page, and what went wrong since it was opened."
    return open_page(browser, report)


@pytest.fixture(scope='module')
def page(opened): return opened[0]


def test_loads_without_errors_and_from_nothing_else(opened):
    page, wrong = opened
    assert page.title() and page.query_selector('h1') and not wrong, wrong


def test_is_small_enough_to_send(report): assert report.stat().st_size < 8*2**20


words = """part => {                    // seen at once: no figures, nothing folded, no contents
    const copy = part.cloneNode(true), chapters = []
    copy.querySelectorAll('figure, details, nav').forEach(e => e.remove())
    document.body.append(copy)
    for (const e of copy.children) {
        if (e.tagName == 'H1') chapters.push(0)
        chapters[chapters.length - 1] += e.innerText.trim().split(/\\s+/).length
    }
    copy.remove()
    return chapters
}"""


def test_can_be_read_in_the_time_there_is(page, report):
    "1,200 words and 12,000 pixels for the page that one reads, 2,500 words for a chapter of the one that is handed in."
    if report.stem == 'runs': pytest.skip('one table')
    show(page, 1400)
    counts = page.eval_on_selector('main', words)
    assert max(counts) <= (1200 if report.stem == 'index' else 2500), counts
    if report.stem == 'index': assert page.evaluate('document.documentElement.scrollHeight') <= 12000


def test_figures_fit_a_phone(page, report):
    if report.stem != 'index': pytest.skip('figures of the long page scroll in their boxes')
    show(page, 390)
    assert not page.evaluate("[...document.images].filter(i => i.getBoundingClientRect().right > innerWidth).map(i => i.alt)")


letters = """wide => [...document.querySelectorAll('picture img')].map(i => {   // the smallest letters of each drawing, in pixels
    const svg = atob(i.currentSrc.split(',')[1]), box = svg.match(/viewBox="0 0 ([\\d.]+)/)
    if (!box) return wide
    return i.clientWidth/box[1]*Math.min(...[...svg.matchAll(/font(?:-size)?: (?:bold )?([\\d.]+)px/g)].map(m => m[1]))
})"""


def test_figures_can_be_read_on_a_phone(page, report):
    if report.stem == 'runs': pytest.skip('no figures')
    show(page, 390)
    sizes = page.evaluate(letters, 99)
    assert len(sizes) >= 11 and min(sizes) >= 9, sizes


def test_every_training_can_be_found_and_sorted(page, report):
    if report.stem != 'runs': pytest.skip('a page without a script')
    shown = 'tbody tr:not([hidden]) th'
    every = page.locator(shown).count()
    page.fill('input[type=search]', 'lenet5 cifar100')
    some = page.locator(shown).all_inner_texts()
    assert 0 < len(some) < every and all('lenet5' in s for s in some)
    page.fill('input[type=search]', '')
    head = page.locator('thead th', has_text='test accuracy').first
    column = head.evaluate('e => e.cellIndex')
    for _ in range(2): head.locator('button').click()
    values = [float(s.split()[0]) for s in page.locator(f'tbody tr td:nth-child({column + 1})').all_inner_texts() if s[:1].isdigit()]
    assert len(values) > 100 and values == sorted(values, reverse=True)


def test_images_render_and_have_alt_texts(page): assert not bad_images(page)


def test_no_labels_touch(page, report):
    if report.stem == 'runs': pytest.skip('no figures')
    assert not touching_labels(page)


def test_links_lead_somewhere(page): assert not bad_ids(page)


def test_contents_bring_sections_into_view(page, report): assert report.stem == 'runs' or not bad_contents(page)


def test_folded_parts_open(page): assert not bad_details(page)


@pytest.mark.parametrize('width', (390, 1200))
def test_does_not_scroll_sideways(page, width): assert not too_wide(page, width)


@pytest.mark.parametrize('scheme,width', [('light', 1200), ('dark', 390)])
def test_is_accessible(browser, opened, report, scheme, width):
    page, _ = open_page(browser, report) # the check takes rows out of it
    found = inaccessible(page, scheme, width)
    page.close()
    assert not found


def test_fits_on_paper(page): assert not too_wide_in_print(page)


def test_prints(page, report):
    show(page, media='print')
    pdf = page.pdf(format='A4')
    show(page)
    assert pdf.startswith(b'%PDF')
    if report.stem == 'full': assert pdf.count(b'/Type /Page\n') <= 135


def test_nothing_went_wrong_while_all_this_was_done(opened): assert not opened[1]


# The checks themselves: each finds nothing in a sound page, and what was broken in a broken one.
pixel = 'data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7'
sound = f'''<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>sound</title><style>
:root {{ color-scheme: light dark }} body {{ color: black; background: white }} a {{ color: #00c }} .box {{ overflow-x: auto }}
@media (prefers-color-scheme: dark) {{ body {{ color: white; background: black }} a {{ color: #9cf }} }}
@media print {{ td {{ min-width: 0 !important }} }}
</style></head><body><h1>A page</h1><nav><a href="#end">end</a></nav><img src="{pixel}" alt="a pixel">
<div class="box" tabindex="0"><table><tr><td style="min-width: 900px">a wide table in a box</td></tr></table></div>
<details><summary>more</summary>folded</details>
<p style="height: 2000px">long</p><h2 id="end">end</h2><!--here--></body></html>'''
drawn = lambda x: base64.b64encode(f'<svg xmlns="http://www.w3.org/2000/svg"><text x="0" y="20">a label</text><text x="{x}" y="20">b</text></svg>'.encode()).decode()
drawing = lambda x: f'<img alt="a drawing" src="data:image/svg+xml;base64,{drawn(x)}">'
checks = [touching_labels, bad_images, bad_ids, bad_contents, bad_details, too_wide, too_wide_in_print, inaccessible]
broken = {
    'an image that is none': (bad_images, '<img src="data:image/png;base64,AAAA" alt="broken">', 'image 2 (broken) does not render'),
    'labels that touch': (touching_labels, drawing(20), 'a label touches b: a drawing'),
    'an image without words': (bad_images, f'<img src="{pixel}">', 'has no alt text'),
    'a dead link': (bad_ids, '<a href="#nowhere">there</a>', '#nowhere, which is not there'),
    'an id twice': (bad_ids, '<p id="end">', 'id end occurs twice'),
    'contents that lead nowhere': (bad_contents, '<nav><a href="#nowhere">there</a></nav>', '#nowhere is not in view'),
    'a target under a bar': (bad_contents, '<div style="position: fixed; top: 0; left: 0; right: 0; height: 300px; background: white"></div>'
                                           '<p style="height: 2000px">', '#end is not in view'),
    'no contents': (bad_contents, '<script>document.querySelector("nav").remove()</script>', 'there are no contents'),
    'a fold that stays shut': (bad_details, '<details onclick="event.preventDefault()"><summary>no</summary></details>', 'details 2 does not'),
    'a wide box': (too_wide, '<div style="width: 500px">wide</div>', 'div reaches to'),
    'a wide box, cut off': (too_wide, '<style>body { overflow-x: hidden }</style><p style="width: 500px">wide</p>', 'p reaches to'),
    'a table that paper cuts off': (too_wide_in_print, '<style>td { min-width: 900px !important }</style>', 'table reaches to'),
    'grey on white': (inaccessible, '<p style="color: #aaa; background: #fff">pale</p>', 'color-contrast'),
    'a button without a name': (inaccessible, '<button></button>', 'button-name'),
}


@pytest.mark.parametrize('scheme', ('light', 'dark'))
def test_nothing_is_found_in_a_sound_page(browser, tmp_path, scheme):
    (tmp_path/'page.html').write_text(sound)
    page, wrong = open_page(browser, tmp_path/'page.html')
    assert not sum([check(page) for check in checks], []) + inaccessible(page, scheme, 390) + wrong
    page.close()


@pytest.mark.parametrize('name', broken)
def test_what_is_broken_is_found(browser, tmp_path, name):
    check, html, said = broken[name]
    (tmp_path/'page.html').write_text(sound.replace('<!--here-->', html))
    page, _ = open_page(browser, tmp_path/'page.html')
    found = check(page)
    page.close()
    assert any(said in text for text in found), found


def test_pale_text_is_found_in_the_dark_only(browser, tmp_path):
    (tmp_path/'page.html').write_text(sound.replace('a { color: #9cf }', 'a { color: #333 }'))
    page, _ = open_page(browser, tmp_path/'page.html')
    assert not inaccessible(page, 'light') and 'color-contrast' in inaccessible(page, 'dark')[0]
    page.close()


@pytest.mark.parametrize('html,said', [('<script src="https://example.org/a.js"></script>', 'leaves the page: https://example.org/a.js'),
                                       ('<img src="beside.png" alt="beside">', 'leaves the page: file:'),
                                       ('<script>nothing()</script>', 'nothing is not defined'),
                                       ('<script>console.error("told")</script>', 'console: told')])
def test_errors_and_requests_are_noticed(browser, tmp_path, html, said):
    (tmp_path/'page.html').write_text(sound.replace('<!--here-->', html))
    page, wrong = open_page(browser, tmp_path/'page.html')
    page.close()
    assert any(said in text for text in wrong), wrong
