package sim

import "time"

// event is something that will happen.
type event struct {
	at   time.Duration
	tie  uint32 // chance, among events of one instant
	age  uint64
	life *life  // it happens only while this lasts
	run  func() // nil: called off, or done
}

func (e *event) before(f *event) bool {
	if e.at != f.at {
		return e.at < f.at
	}
	if e.tie != f.tie {
		return e.tie < f.tie
	}
	return e.age < f.age
}

// queue is a heap of events, the next one first.
type queue []*event

func (q queue) peek() *event {
	if len(q) == 0 {
		return nil
	}
	return q[0]
}

func (q *queue) push(e *event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	*q = h
}

func (q *queue) pop() {
	h := *q
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	*q = h
}
