use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Style};
use serde_json::{Value, json};

use super::*;
use crate::top::sample::{
    busy, class, crash, decision, empty, seen, seen_twice, times, ui, worker,
};

/// A terminal with the picture on it.
fn terminal(picture: Picture<'_>, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        draw(picture, frame.area(), frame.buffer_mut());
    });
    drawn.unwrap();
    terminal
}

fn rows(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    (buffer.content.chunks(width))
        .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect())
        .collect()
}

/// The picture of an engine as 80 x 24 characters of ASCII, or as many as are asked for.
fn screen_of(engine: &Value, ui: &Ui, width: u16, height: u16) -> Vec<String> {
    let model = seen(engine);
    let look = Look::new(false, true);
    let picture = Picture {
        model: &model,
        ui,
        look,
    };
    rows(&terminal(picture, width, height))
}

fn screen(engine: &Value) -> Vec<String> {
    screen_of(engine, &ui(), 80, 24)
}

#[track_caller]
fn has(screen: &[String], text: &str) -> usize {
    let found = screen.iter().position(|row| row.contains(text));
    found.unwrap_or_else(|| panic!("no {text:?} in\n{}", screen.join("\n")))
}

fn has_not(screen: &[String], text: &str) -> bool {
    screen.iter().all(|row| !row.contains(text))
}

/// An engine with a bit of everything.
fn eventful() -> Value {
    let mut engine = busy(3);
    engine["classes"][1] = class("io", 2, 4);
    engine["classes"][1]["queued"] = json!(12);
    engine["classes"][1]["oldest_ns"] = json!(130_000_000);
    engine["crashes"] = json!([crash(40), crash(4)]);
    engine["decisions"] = json!([decision(100), decision(20)]);
    engine["notes"] = json!(["huge pages: not allowed here"]);
    engine
}

#[test]
fn an_engine_without_workers_is_a_picture_too() {
    let screen = screen(&empty());
    has(&screen, "demo   * running   up 1h02m   pid 4321");
    has(&screen, "61 % of 8 processors");
    has(&screen, "-- workers 0 --");
    has(&screen, " none");
    has(&screen, "q quit  ? help");
}

#[test]
fn a_worker_shows_its_busy_threads_as_a_bar_and_as_a_number() {
    let screen = screen(&busy(1));
    has(
        &screen,
        "Process 1: #######...  7 threads cpu   ready     3     0 900ms  1001    0   98",
    );
}

#[test]
fn in_unicode_the_bar_is_made_of_blocks() {
    let model = seen(&busy(1));
    let picture = Picture {
        model: &model,
        ui: &ui(),
        look: Look::new(true, false),
    };
    let screen = rows(&terminal(picture, 80, 24));
    let bar = format!("{}{}", "\u{2588}".repeat(7), "\u{2591}".repeat(3));
    has(&screen, &format!("Process 1: {bar}  7 threads"));
}

#[test]
fn all_workers_that_fit_are_shown_and_the_title_says_which() {
    let screen = screen(&busy(64));
    let first = has(&screen, "Process  1:");
    has(&screen, "-- workers 64 --");
    has(&screen, &format!(" 1 to {} of 64 --", first_rows(&screen)));
    assert!(has_not(&screen, "Process 64:"));
    assert!(screen[first].contains("ready"));
    let tall = screen_of(&busy(64), &ui(), 80, 90);
    has(&tall, "Process 64:");
    assert!(has_not(&tall, "of 64"));
}

fn first_rows(screen: &[String]) -> usize {
    screen.iter().filter(|row| row.contains("Process")).count()
}

#[test]
fn scrolling_shows_the_rows_below_and_stops_at_the_last() {
    let mut ui = ui();
    ui.scroll = [10, 0];
    let screen = screen_of(&busy(64), &ui, 80, 24);
    assert!(has_not(&screen, "Process 10:"));
    has(&screen, "Process 11:");
    ui.scroll = [usize::MAX, 0];
    has(&screen_of(&busy(64), &ui, 80, 24), "Process 64:");
}

#[test]
fn deaths_and_decisions_are_told_with_their_reasons_the_newest_first() {
    let screen = screen(&eventful());
    let note = has(&screen, "* huge pages: not allowed here");
    let newest = has(
        &screen,
        "4s  cpu  SIGSEGV Process 3 in decode at codec.rs:42",
    );
    let older = has(
        &screen,
        "20s  cpu  grow    2 -> 4   more tasks per thread than 2.5",
    );
    assert!(note < newest && newest < older);
}

#[test]
fn on_a_wide_screen_decisions_and_deaths_stand_side_by_side() {
    let screen = screen_of(&eventful(), &ui(), 200, 40);
    let row = has(&screen, "-- scaling --");
    assert!(screen[row].contains("-- crashes --"));
    let newest = &screen[row + 1];
    assert!(
        newest.contains(" 20s  cpu") && newest.contains(" 4s  cpu"),
        "{newest}"
    );
    has(&screen, "pid");
    has(&screen, "5001");
}

#[test]
fn a_class_shows_workers_queue_and_quantiles_of_what_came_between_the_looks() {
    let before = eventful();
    let mut after = before.clone();
    after["classes"][1]["run_time"] = times(&[(1_280, 98), (5_120, 2)]);
    let model = seen_twice(&before, &after);
    let picture = Picture {
        model: &model,
        ui: &ui(),
        look: Look::new(false, true),
    };
    let screen = rows(&terminal(picture, 80, 24));
    has(
        &screen,
        " class ready range queued oldest  rate wait p50   p99 p99.9 run p50   p99 p99.9",
    );
    has(&screen, " io      2/2  0..4     12  130ms  50.0        -");
    has(&screen, "1.3us 5.1us");
    has(&screen, " cpu     3/3  0..6      0      -     0");
}

#[test]
fn a_filter_leaves_the_workers_that_have_all_its_words() {
    let mut engine = busy(12);
    engine["workers"][4]["class"] = json!("io");
    engine["workers"][5]["class"] = json!("io");
    engine["workers"][5]["state"] = json!("draining");
    let mut ui = ui();
    for (filter, count) in [
        ("io", 2),
        ("IO drain", 1),
        ("draining", 1),
        ("12", 1),
        ("x", 0),
    ] {
        ui.filter = filter.into();
        let screen = screen_of(&engine, &ui, 80, 40);
        has(&screen, &format!("-- workers {count} of 12 --"));
        assert_eq!(first_rows(&screen), count, "{filter}");
    }
    has(
        &screen_of(&engine, &ui, 80, 24),
        "none that the filter lets pass",
    );
}

#[test]
fn rows_are_sorted_by_the_column_that_is_marked() {
    use crate::top::keys::SortBy;
    let mut engine = busy(3);
    engine["workers"][1]["running"] = json!(9);
    engine["workers"][2]["running"] = json!(2);
    let mut ui = ui();
    (ui.sort, ui.descending) = (SortBy::Load, true);
    let screen = screen_of(&engine, &ui, 80, 24);
    has(&screen, " process    loadv");
    let order = [2, 1, 3].map(|slot| has(&screen, &format!("Process {slot}:")));
    assert!(order.is_sorted(), "{order:?}");
    ui.descending = false;
    let screen = screen_of(&engine, &ui, 80, 24);
    has(&screen, " process    load^");
    let order = [3, 1, 2].map(|slot| has(&screen, &format!("Process {slot}:")));
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn an_engine_that_is_gone_is_shown_as_it_was_last() {
    let mut engine = busy(2);
    engine["state"] = json!("dead");
    let model = seen(&engine);
    let picture = Picture {
        model: &model,
        ui: &ui(),
        look: Look::new(false, true),
    };
    let screen = rows(&terminal(picture, 80, 24));
    has(&screen, "demo   * gone");
    has(&screen, "Process 2:");
    has(&screen, "the engine is gone, this was last");
}

#[test]
fn what_is_amiss_is_said() {
    let mut engine = busy(1);
    engine["degraded"] = json!(true);
    engine["classes"][0]["broken"] = json!("no such file");
    engine["machine"]["memory_state"] = json!("refusing");
    let screen = screen(&engine);
    has(&screen, "DEGRADED");
    has(&screen, "the zygote is gone");
    has(&screen, "cpu: no worker can be started: no such file");
    has(&screen, "submits refused: memory");
}

#[test]
fn where_room_is_short_the_least_important_columns_are_left_out() {
    let narrow = screen_of(&busy(2), &ui(), 40, 24);
    has(&narrow, "Process 1: #######...  7 threads");
    let wide = screen_of(&busy(2), &ui(), 150, 24);
    let heading = has(&wide, " process^");
    for title in [
        "queue", "rate", "mean", "done", "fail", "cpu%", "rss", "crash", "pid", "up",
    ] {
        assert!(wide[heading].contains(title), "{title}");
    }
}

#[test]
fn without_colours_nothing_has_one_and_with_them_a_crash_is_red() {
    let model = seen(&eventful());
    let colors = |color| {
        let picture = Picture {
            model: &model,
            ui: &ui(),
            look: Look::new(color, false),
        };
        let terminal = terminal(picture, 80, 24);
        let cells = &terminal.backend().buffer().content;
        cells
            .iter()
            .map(|cell| (cell.fg, cell.bg))
            .collect::<Vec<_>>()
    };
    let none = (Color::Reset, Color::Reset);
    assert!(colors(false).iter().all(|&cell| cell == none));
    assert!(colors(true).iter().any(|&(fg, _)| fg == Color::Red));
    assert_eq!(Look::new(false, false).good(), Style::new());
}

#[test]
fn a_pause_and_the_filter_being_typed_can_be_seen() {
    let mut ui = ui();
    ui.paused = true;
    ui.filter = "io".into();
    ui.typing = Some(String::new());
    let screen = screen_of(&busy(1), &ui, 80, 24);
    has(&screen, " PAUSED ");
    has(&screen, " filter: io ");
}

#[test]
fn help_covers_the_picture() {
    let mut ui = ui();
    ui.help = true;
    let screen = screen_of(&busy(1), &ui, 80, 24);
    has(&screen, "sort by the next column");
    has(&screen, "submits that found no room");
}

#[test]
fn as_text_all_is_told_and_no_line_is_longer_than_asked_for() {
    let model = seen(&{
        let mut engine = eventful();
        engine["workers"] = (0..70).map(worker).collect();
        engine
    });
    let picture = Picture {
        model: &model,
        ui: &ui(),
        look: Look::new(true, true),
    };
    let text = text(picture, 100);
    for what in ["Process 69:", "40s  cpu  SIGSEGV", "100s", "huge pages"] {
        let what = what.replace("100s", "1m40s  cpu");
        assert!(text.contains(&what), "{what}: {text}");
    }
    assert!(text.lines().all(|line| line.len() <= 100));
    assert!(!text.contains("q quit") && !text.contains('\x1b'));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
}

#[test]
fn texts_of_others_cannot_write_on_the_terminal_nor_beyond_ascii() {
    let mut engine = eventful();
    engine["notes"] = json!(["evil \x1b[2J note \u{fc}ber \u{4f60}"]);
    let screen = screen(&engine);
    has(&screen, "evil [2J note ?ber ?");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_engine_can_be_drawn_and_scrolled_at_any_size(
        workers in 0_u32..200,
        crashes in 0_i64..64,
        scroll in any::<[usize; 2]>(),
        (color, ascii, help, gone, typing) in any::<(bool, bool, bool, bool, bool)>(),
        filter in "[a-z0-9 ]{0,3}",
    ) {
        let mut engine = busy(workers);
        engine["crashes"] = (0..crashes).map(crash).collect();
        engine["decisions"] = (0..crashes * 2).map(decision).collect();
        if gone {
            engine["state"] = json!("dead");
        }
        let model = seen(&engine);
        let mut ui = ui();
        (ui.scroll, ui.help, ui.filter) = (scroll, help, filter);
        ui.typing = typing.then(String::new);
        let picture = Picture { model: &model, ui: &ui, look: Look::new(color, ascii) };
        for (width, height) in [(1, 1), (1, 60), (200, 1), (200, 60), (80, 24)] {
            terminal(picture, width, height);
        }
    }
}

#[test]
fn every_size_up_to_200_by_60_can_be_drawn() {
    let mut engine = eventful();
    engine["workers"] = (0..6).map(worker).collect();
    let model = seen(&engine);
    let mut ui = ui();
    let mut buffer = Buffer::empty(Rect::new(0, 0, 200, 60));
    for height in 1..=60 {
        for width in 1..=200 {
            ui.help = (width + height) % 5 == 0;
            let picture = Picture {
                model: &model,
                ui: &ui,
                look: Look::new(true, width % 8 == 0),
            };
            let area = Rect::new(0, 0, width, height);
            let most = draw(picture, area, &mut buffer);
            assert!(most[0] <= 6 && most[1] <= 5, "{width} x {height}: {most:?}");
        }
    }
}
