"""Tagging: answers, batches, streams, arrays, and what they do when a picture is bad."""

import gc
import inspect
import json
import pickle
import threading
import time

import numpy as np
import PIL.Image
import pytest
import tagbrush
from tagbrush import Tag, Tags


def test_true_tags_are_found(tagger, samples, expected):
    right = total = 0
    for path, tags in zip(samples, tagger.tag_batch(samples), strict=True):
        wanted = expected[path.name]
        assert tags.rating.name == wanted["rating"]
        found = {tag.name for tag in tags.tags}
        right += len(found & set(wanted["tags"]))
        total += len(wanted["tags"])
    assert right / total > 0.9


def test_batch_stream_single_and_scores_agree(tagger, samples):
    batch = tagger.tag_batch(samples, threshold=0.2)
    assert list(tagger.tag_iter(samples, threshold=0.2)) == batch
    assert [tagger.tag(path, threshold=0.2) for path in samples] == batch
    scores = tagger.scores(samples)
    assert scores.shape == (len(samples), len(tagger.labels)) and scores.dtype == np.float32
    for row, tags in zip(scores, batch, strict=True):
        for tag in [*tags, *tags.ratings]:
            assert tagger.labels[tag.index].name == tag.name
            assert row[tag.index] == np.float32(tag.score)
        kept = {label.name for label, score in zip(tagger.labels, row, strict=True) if score > 0.2}
        assert {tag.name for tag in tags} == kept - {tag.name for tag in tags.ratings}


def test_scores_give_tags_under_any_options(tagger, samples):
    scores = tagger.scores(samples)
    for options in ({}, {"threshold": 0.7}, {"mcut": True}, {"top_k": 2, "order": "score"}):
        batch = tagger.tag_batch(samples, **options)
        assert tagger.select(scores, **options) == batch
        assert [tagger.select(row, **options) for row in scores] == batch
    tags = tagger.tag(samples[0])
    assert tagger.select(scores[0].tolist()) == tags
    assert tagger.select(scores.astype(np.float64)[:1]) == [tags]
    assert tagger.select(list(scores[::2]))[0] == tags
    assert tagger.select(np.asfortranarray(scores))[0] == tags
    assert tagger.select(scores[:0]) == []


def test_scores_of_another_shape_are_refused(tagger, samples):
    row = tagger.scores(samples[:1])[0]
    for wrong in (row[:-1], row[None, :-1], [], np.empty((2, 0)), row[None, None], 0.5):
        with pytest.raises(tagbrush.InvalidInputError):
            tagger.select(wrong)
    for wrong in (["high"] * len(row), row * 1j, [None] * len(row)):
        with pytest.raises(TypeError):
            tagger.select(wrong)
    with pytest.raises(tagbrush.InvalidInputError):
        tagger.select(row, threshold=-1)
    with pytest.raises(TypeError, match="treshold.*known: threshold"):
        tagger.select(row, treshold=0.3)
    assert tagger.select(np.full(len(row), np.nan), threshold=0).tags == []


def test_arrays_belong_to_numpy(tagger, samples):
    scores = tagger.scores(samples[:2])
    assert scores.flags.writeable and scores.flags.c_contiguous
    assert not scores.flags.owndata, "numpy shows the core's memory"
    scores[0, 0] = 7
    row = scores[1]
    expected = row.copy()
    del scores
    gc.collect()
    assert np.array_equal(row, expected), "a row keeps the whole alive"
    vectors = tagger.embed(samples[:3])
    assert vectors.shape == (3, tagger.embedding_length)
    assert tagger.scores([]).shape == (0, len(tagger.labels))


def test_a_bad_picture_costs_no_other_one_its_answer(tagger, samples, tmp_path):
    images = [samples[0], b"no image", tmp_path / "none.png", np.zeros((4, 4)), samples[1]]
    kinds = [None, tagbrush.ImageDecodeError, tagbrush.InputOutputError, tagbrush.InvalidInputError, None]
    good = tagger.tag_batch([samples[0], samples[1]])
    for answers in (
        tagger.tag_batch(images, errors="return"),
        list(tagger.tag_iter(images, errors="return")),
    ):
        assert [answers[0], answers[4]] == good
        assert [type(a) if k else None for a, k in zip(answers, kinds, strict=True)] == kinds
    rows = tagger.scores(images, errors="return")
    assert [type(row) for row in rows[1:4]] == kinds[1:4]
    assert np.array_equal([rows[0], rows[4]], tagger.scores([samples[0], samples[1]]))
    for call in (tagger.tag_batch, tagger.scores, tagger.embed, lambda i: list(tagger.tag_iter(i))):
        with pytest.raises(tagbrush.ImageDecodeError):
            call(images)


def test_a_stream_is_pulled_as_it_is_needed(tagger, picture):
    few = tagger.with_batch_size(3)
    pulled = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield picture

    stream = few.tag_iter(endless())
    assert pulled == 0
    for done in range(1, 30):
        assert isinstance(next(stream), Tags)
        assert pulled <= done + 6, "more than two batches ahead"
    stream.close()


def test_many_bad_pictures_in_a_stream_are_answered_one_by_one(tagger, picture):
    pulled = []
    images = (pulled.append(i) or (picture if i % 100 == 99 else b"") for i in range(1000))
    answers = [isinstance(a, Tags) for a in tagger.with_batch_size(2).tag_iter(images, errors="return")]
    assert answers == [i % 100 == 99 for i in range(1000)]
    stream = tagger.tag_iter((np.zeros(3) for _ in iter(int, 1)), errors="return")
    assert all(isinstance(next(stream), tagbrush.InvalidInputError) for _ in range(1000))


def test_what_the_source_of_a_stream_raises_comes_last(tagger, samples):
    def source():
        yield from samples[:3]
        raise KeyError("lost")

    answers = []
    with pytest.raises(KeyError, match="lost"):
        for tags in tagger.tag_iter(source()):
            answers.append(tags)
    assert answers == tagger.tag_batch(samples[:3])


def test_wrong_calls_are_found_at_once(tagger, samples):
    for images in (str(samples[0]), samples[0], samples[0].read_bytes(), PIL.Image.new("RGB", (3, 3)), np.zeros((3, 3, 3), np.uint8)):
        for call in (tagger.tag_batch, tagger.tag_iter, tagger.scores):
            with pytest.raises(TypeError, match="list of images"):
                call(images)
    with pytest.raises(TypeError, match="an image is"):
        tagger.tag_batch([samples[0], 3], errors="return")
    with pytest.raises(TypeError, match="treshold.*known: threshold"):
        tagger.tag(samples[0], treshold=0.3)
    with pytest.raises(TypeError, match="threshold: "):
        tagger.tag(samples[0], threshold="high")
    with pytest.raises(TypeError, match="exclude"):
        tagger.tag(samples[0], exclude="solo")
    with pytest.raises(TypeError):
        tagger.tag(samples[0], 0.3)
    for options in ({"threshold": -1}, {"threshold": float("nan")}, {"order": "size"}, {"top_k": -1}, {"category_thresholds": {"people": 0.1}}):
        for call in (tagger.tag, lambda i, **o: tagger.tag_batch([i], **o), lambda i, **o: tagger.tag_iter([i], **o)):
            with pytest.raises(tagbrush.InvalidInputError):
                call(samples[0], **options)
    with pytest.raises(ValueError, match="errors"):
        tagger.tag_batch(samples, errors="ignore")
    with pytest.raises(ValueError, match="batch size"):
        tagger.with_batch_size(0)
    with pytest.raises(TypeError, match="Tagger.load"):
        tagbrush.Tagger()


def test_a_batch_may_be_one_array_or_any_iterable(tagger, picture):
    stack = np.stack([picture.to_numpy()] * 3)
    one = tagger.tag(picture)
    assert tagger.tag_batch(stack) == [one] * 3
    assert tagger.tag_batch(picture for _ in range(2)) == [one] * 2
    objects = np.array([picture.encode(), picture.encode("webp")], dtype=object)
    assert tagger.tag_batch(objects) == [one] * 2
    assert tagger.tag_batch([]) == []


def test_options_reach_the_core(tagger, samples):
    everything = tagger.tag(samples[0], threshold=0)
    names = [tag.name for tag in everything.tags]
    by_score = tagger.tag(samples[0], threshold=0, order="score").tags
    assert [t.score for t in by_score] == sorted((t.score for t in by_score), reverse=True)
    assert [t.name for t in tagger.tag(samples[0], threshold=0, order="name").tags] == sorted(names)
    assert len(tagger.tag(samples[0], threshold=0, top_k=2).tags) == 2
    assert len(tagger.tag(samples[0], threshold=2)) == 0
    assert names[0] not in tagger.tag(samples[0], threshold=0, exclude=[names[0].replace("_", " ")])
    only = tagger.tag(samples[0], threshold=2, tag_thresholds={names[1]: 0})
    assert [tag.name for tag in only.tags] == [names[1]]
    for thresholds in ({"general": 0}, {0: 0}, {"0": 0}):
        general = tagger.tag(samples[0], threshold=2, category_thresholds=thresholds).tags
        assert general and all(tag.category == 0 for tag in general)
    assert not tagger.tag(samples[0], threshold=0, character_threshold=2).characters
    assert len(tagger.tag(samples[0], mcut=True)) < len(everything)
    assert tagger.tag(samples[0], threshold=None, top_k=None) == tagger.tag(samples[0])
    implied = tagger.tag(
        samples[0], threshold=0, drop_redundant=True, implications=[(names[1], names[2])]
    )
    assert names[2] not in implied


def test_tags_are_values():
    tags = Tags([Tag("general", 0.75, 9)], [Tag("rin_(vocaloid)", 0.5, 4, 3)], [Tag("solo", 0.25, 0, 7)])
    assert tags.rating == Tag("general", 0.75, 9) and len(tags) == 2
    assert [tag.name for tag in tags] == ["rin_(vocaloid)", "solo"]
    assert "solo" in tags and "general" not in tags
    assert tags.to_dict() == {"ratings": {"general": 0.75}, "characters": {"rin_(vocaloid)": 0.5}, "tags": {"solo": 0.25}}
    assert json.loads(tags.to_json()) == tags.to_dict()
    assert Tag("a", 0.1).score == 0.1 and Tags(tags=[Tag("a", 0.1)]).to_dict()["tags"] == {"a": 0.1}
    assert tags.caption() == "rin (vocaloid), solo"
    assert tags.caption(
        separator="; ", escape=True, keep_underscores=True, rating="first", replace={"solo": "alone"},
        always_first=["solo"], prepend=["a"], append=["b"],
    ) == "a; alone; general; rin_\\(vocaloid\\); b"
    assert tags.caption(weights=True, characters_last=True) == "(solo:0.250), (rin (vocaloid):0.500)"
    with pytest.raises(tagbrush.InvalidInputError):
        tags.caption(rating="middle")
    again = pickle.loads(pickle.dumps(tags))
    assert again == tags and again != Tags() and again.tags[0].index == 7
    assert hash(tags.tags[0]) == hash(again.tags[0])
    assert repr(tags) == "Tags([general] rin (vocaloid), solo)"
    html = tags._repr_html_()
    assert "solo" in html and "0.250" in html and "width:40px" in html
    assert "<b>" not in Tags(tags=[Tag("<b>", 0.5)])._repr_html_()


def test_what_a_tagger_says_of_itself(tagger):
    assert tagger.name == "demo" and (tagger.device, tagger.dtype) == ("cpu", "f32")
    assert len(tagger.input_size) == 2 and tagger.batch_size >= 1
    assert repr(tagger) == f"Tagger('demo', device='cpu', dtype='f32', labels={len(tagger.labels)})"
    assert {label.category for label in tagger.labels} >= {0, 4, 9}
    parameters = inspect.signature(tagger.tag_batch).parameters
    assert parameters["threshold"].default == tagbrush.DEFAULT_THRESHOLD == 0.35
    assert parameters["threshold"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "options" not in parameters


def test_the_shown_defaults_are_those_of_the_core(tagger, samples):
    from tagbrush._options import DEFAULTS, TagOptions

    shown = {name: DEFAULTS.get(name) for name in TagOptions.__annotations__}
    shown = {name: list(value) if value == () else value for name, value in shown.items()}
    assert tagger.tag_batch(samples, **shown) == tagger.tag_batch(samples)


def test_pickles_carry_the_recipe(tagger, samples):
    small = tagbrush.Tagger.load("demo", batch_size=5, dtype="bf16")
    data = pickle.dumps(small)
    assert len(data) < 300
    again = pickle.loads(data)
    assert (again.batch_size, again.dtype) == (5, "bf16")
    assert again.tag(samples[0]) == small.tag(samples[0])
    assert pickle.loads(pickle.dumps(small.with_batch_size(2))).batch_size == 2


def test_progress_counts_and_cancels(tagger, samples):
    seen = []
    tagger.tag_batch(samples, progress=lambda *p: seen.append(p))
    assert [done for done, _, _ in seen] == list(range(1, len(samples) + 1))
    assert {total for _, total, _ in seen} == {len(samples)}
    few = tagger.with_batch_size(2)
    answers = few.tag_batch(samples, errors="return", progress=lambda done, _t, _l: done < 3)
    assert isinstance(answers[0], Tags) and isinstance(answers[-1], tagbrush.CancelledError)
    with pytest.raises(tagbrush.CancelledError):
        few.scores(samples, progress=lambda *_: False)
    with pytest.raises(ZeroDivisionError):
        few.embed(samples, progress=lambda *_: 1 / 0)
    threads = []
    tagger.tag_batch(samples[:1], progress=lambda *_: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]
    with pytest.raises(TypeError, match="progress"):
        tagger.tag_batch(samples, progress="yes")


def test_progress_with_a_bar(tagger, samples, capsys):
    tagger.tag_batch(samples, progress=True)
    assert f"{len(samples)}/{len(samples)}" in capsys.readouterr().err


def test_progress_without_tqdm_says_what_to_install(tagger, samples, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        tagger.tag_batch(samples, progress=True)


def test_other_threads_run_while_pictures_are_tagged(tagger, samples):
    ticks, stop = 0, threading.Event()

    def tick():
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks
    tagger.scores(samples * 40)
    during = ticks - before
    stop.set()
    thread.join()
    assert during > 5, "the interpreter's lock was held"


def test_many_threads_share_one_tagger(tagger, samples):
    expected = tagger.tag_batch(samples)
    wrong = []

    def work():
        for _ in range(3):
            if tagger.tag_batch(samples) != expected or list(tagger.tag_iter(samples)) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert not wrong


def test_a_stream_refuses_two_users(tagger, picture):
    raw = tagger._core

    def source():
        yield next(stream)

    stream = raw.tag_iter(source(), {})
    with pytest.raises(RuntimeError, match="in use"):
        next(stream)


def test_a_dropped_stream_ends_its_thread(tagger, picture):
    before = threads_of_this_process()
    for _ in range(20):
        stream = tagger.tag_iter(picture for _ in range(1000))
        next(stream)
        del stream
    gc.collect()
    end = time.monotonic() + 20
    while threads_of_this_process() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threads_of_this_process() <= before


def threads_of_this_process() -> int:
    import os
    import sys

    if not sys.platform.startswith("linux"):
        pytest.skip("counts threads in /proc")
    return len(os.listdir("/proc/self/task"))
