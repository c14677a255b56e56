//! The index by space: a loose quadtree in an arena. An item lives in the deepest node on its path whose cells are not smaller
//! than the item, so points sink to small leaves, large polygons stay near the root, and nothing is stored twice.
//!
//! Invariant: an item's node is a function of its box and of the present splits alone; so it is found again without a map.

use crate::model::Rect;

/// Items that a leaf holds before it splits.
const LEAF: usize = 24;
/// Children that hold no more than this together are taken back into their parent.
const MERGE: usize = 8;
const MAX_DEPTH: u32 = 32;
const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Node {
    items: Vec<Item>,
    /// The first of four children that stand in a row; `NONE` of a leaf.
    children: u32,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    rect: Rect,
    slot: u32,
}

/// A square, by its centre and half its side.
#[derive(Clone, Copy, Debug)]
struct Cell {
    x: f64,
    y: f64,
    half: f64,
}

#[derive(Debug)]
pub struct QuadTree {
    nodes: Vec<Node>,
    /// First children of groups of four that are free.
    free: Vec<u32>,
    root: Cell,
}

impl QuadTree {
    /// `half` is half the side of the root square around 0,0. What lies beyond is found too, but slowly.
    pub fn new(half: f64) -> QuadTree {
        QuadTree {
            nodes: vec![Node { items: Vec::new(), children: NONE }],
            free: Vec::new(),
            root: Cell { x: 0.0, y: 0.0, half },
        }
    }

    pub fn clear(&mut self) {
        *self = QuadTree::new(self.root.half);
    }

    pub fn insert(&mut self, rect: Rect, slot: u32) {
        let (node, cell, depth) = self.descend(&rect).0;
        self.nodes[node as usize].items.push(Item { rect, slot });
        if self.nodes[node as usize].children == NONE
            && self.nodes[node as usize].items.len() > LEAF
            && depth < MAX_DEPTH
        {
            self.split(node, cell);
        }
    }

    pub fn remove(&mut self, rect: Rect, slot: u32) {
        let ((node, ..), parent) = self.descend(&rect);
        let items = &mut self.nodes[node as usize].items;
        let Some(at) = items.iter().position(|i| i.slot == slot) else {
            debug_assert!(false, "an item is where its box says");
            return;
        };
        items.swap_remove(at);
        if parent != NONE && self.nodes[node as usize].children == NONE {
            self.merge(parent);
        }
    }

    /// Moves an item; cheap when it stays in its node.
    pub fn update(&mut self, old: Rect, new: Rect, slot: u32) {
        let (node, ..) = self.descend(&old).0;
        if self.descend(&new).0.0 == node {
            if let Some(item) = self.nodes[node as usize].items.iter_mut().find(|i| i.slot == slot) {
                item.rect = new;
            }
        } else {
            self.remove(old, slot);
            self.insert(new, slot);
        }
    }

    /// Calls `found` with the slot of every item whose box meets `query`.
    pub fn query(&self, query: &Rect, found: &mut impl FnMut(u32)) {
        let mut stack = vec![(0u32, self.root)];
        while let Some((node, cell)) = stack.pop() {
            let n = &self.nodes[node as usize];
            for item in n.items.iter().filter(|i| i.rect.intersects(query)) {
                found(item.slot);
            }
            if n.children != NONE {
                for quadrant in 0..4 {
                    let child = cell.child(quadrant);
                    if child.loose().intersects(query) {
                        stack.push((n.children + quadrant, child));
                    }
                }
            }
        }
    }

    /// The envelope of all items.
    pub fn bounds(&self) -> Option<Rect> {
        self.nodes.iter().flat_map(|n| &n.items).map(|i| i.rect).reduce(|a, b| a.union(&b))
    }

    /// The node where an item of this box belongs, with its cell and depth; and its parent.
    fn descend(&self, rect: &Rect) -> ((u32, Cell, u32), u32) {
        let (mut node, mut cell, mut depth, mut parent) = (0, self.root, 0, NONE);
        while self.nodes[node as usize].children != NONE {
            let Some(quadrant) = cell.quadrant_for(rect) else { break };
            parent = node;
            node = self.nodes[node as usize].children + quadrant;
            cell = cell.child(quadrant);
            depth += 1;
        }
        ((node, cell, depth), parent)
    }

    fn split(&mut self, node: u32, cell: Cell) {
        let children = self.free.pop().unwrap_or_else(|| {
            let first = self.nodes.len() as u32;
            self.nodes.extend((0..4).map(|_| Node { items: Vec::new(), children: NONE }));
            first
        });
        let items = std::mem::take(&mut self.nodes[node as usize].items);
        self.nodes[node as usize].children = children;
        for item in items {
            let home = cell.quadrant_for(&item.rect).map_or(node, |quadrant| children + quadrant);
            self.nodes[home as usize].items.push(item);
        }
    }

    fn merge(&mut self, parent: u32) {
        let children = self.nodes[parent as usize].children;
        let four = children as usize..children as usize + 4;
        let leaves = self.nodes[four.clone()].iter().all(|n| n.children == NONE);
        let held: usize = self.nodes[four.clone()].iter().map(|n| n.items.len()).sum();
        if leaves && held <= MERGE {
            for child in four {
                let items = std::mem::take(&mut self.nodes[child].items);
                self.nodes[parent as usize].items.extend(items);
            }
            self.nodes[parent as usize].children = NONE;
            self.free.push(children);
        }
    }
}

impl Cell {
    fn child(self, quadrant: u32) -> Cell {
        let half = self.half / 2.0;
        Cell {
            x: if quadrant & 1 == 0 { self.x - half } else { self.x + half },
            y: if quadrant & 2 == 0 { self.y - half } else { self.y + half },
            half,
        }
    }

    /// The square twice as large around the same centre: everything whose centre lies in the cell and which is not larger
    /// than the cell lies in it.
    fn loose(self) -> Rect {
        let reach = self.half * 2.0;
        Rect { min_x: self.x - reach, min_y: self.y - reach, max_x: self.x + reach, max_y: self.y + reach }
    }

    /// The child that takes a box; `None` when the box is larger than a child or its centre is outside this cell.
    fn quadrant_for(self, rect: &Rect) -> Option<u32> {
        let (w, h) = (rect.max_x - rect.min_x, rect.max_y - rect.min_y);
        if w > self.half || h > self.half {
            return None;
        }
        let (x, y) = (rect.min_x + w / 2.0, rect.min_y + h / 2.0);
        if (x - self.x).abs() > self.half || (y - self.y).abs() > self.half {
            return None;
        }
        Some(u32::from(x >= self.x) | u32::from(y >= self.y) << 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn random_rect(rng: &mut StdRng) -> Rect {
        let size = if rng.random_bool(0.7) { 0.0 } else { rng.random_range(0.0..40.0) };
        let reach = if rng.random_bool(0.02) { 5000.0 } else { 180.0 };
        let (x, y) = (rng.random_range(-reach..reach), rng.random_range(-reach..reach));
        Rect { min_x: x, min_y: y, max_x: x + size, max_y: y + size / 2.0 }
    }

    #[test]
    fn finds_what_a_plain_scan_finds_while_items_come_move_and_go() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut tree = QuadTree::new(256.0);
        let mut all: Vec<(Rect, u32)> = Vec::new();
        for slot in 0..20_000_u32 {
            match rng.random_range(0..10) {
                0..5 => {
                    let r = random_rect(&mut rng);
                    tree.insert(r, slot);
                    all.push((r, slot));
                }
                5..8 if !all.is_empty() => {
                    let at = rng.random_range(0..all.len());
                    let to = random_rect(&mut rng);
                    tree.update(all[at].0, to, all[at].1);
                    all[at].0 = to;
                }
                _ if !all.is_empty() => {
                    let (r, s) = all.swap_remove(rng.random_range(0..all.len()));
                    tree.remove(r, s);
                }
                _ => {}
            }
            if slot % 200 == 0 {
                let q = random_rect(&mut rng);
                let mut found = Vec::new();
                tree.query(&q, &mut |s| found.push(s));
                let mut expected: Vec<u32> = all.iter().filter(|(r, _)| r.intersects(&q)).map(|(_, s)| *s).collect();
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected);
            }
        }
        for (r, s) in all {
            tree.remove(r, s);
        }
        assert_eq!(tree.bounds(), None);
    }
}
