package sim

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/mailbox"
)

// box is a mailbox that handles one message a step, so that anything may happen
// between two messages of an actor.
type box struct {
	host         *Host
	life         *life
	invoker      actor.MessageInvoker
	actor        actor.Context
	system, user []any
	suspended    bool
	scheduled    bool
}

func (h *Host) mailbox() actor.Mailbox { return &box{host: h, life: h.life} }

// PostUserMessage implements [actor.Mailbox].
func (b *box) PostUserMessage(message any) {
	b.user = append(b.user, message)
	b.schedule()
}

// PostSystemMessage implements [actor.Mailbox].
func (b *box) PostSystemMessage(message any) {
	b.system = append(b.system, message)
	b.schedule()
}

// RegisterHandlers implements [actor.Mailbox]. The world is the dispatcher.
func (b *box) RegisterHandlers(invoker actor.MessageInvoker, _ actor.Dispatcher) {
	b.invoker = invoker
	b.actor, _ = invoker.(actor.Context)
}

// Start implements [actor.Mailbox].
func (b *box) Start() {}

// UserMessageCount implements [actor.Mailbox].
func (b *box) UserMessageCount() int { return len(b.user) }

func (b *box) schedule() {
	if b.scheduled || len(b.system) == 0 && (b.suspended || len(b.user) == 0) {
		return
	}
	b.scheduled = true
	w := b.host.world
	w.after(w.delay(50*time.Microsecond, 5*time.Millisecond, time.Second), b.life, b.step)
}

// step handles one message, those of the library first.
func (b *box) step() {
	b.scheduled = false
	defer b.schedule()
	for len(b.system) > 0 {
		message := b.system[0]
		b.system = b.system[1:]
		switch message.(type) {
		case *actor.SuspendMailbox:
			b.suspended = true
		case *actor.ResumeMailbox:
			b.suspended = false
		default:
			b.invoke(message, b.invoker.InvokeSystemMessage)
			return
		}
	}
	if b.suspended || len(b.user) == 0 {
		return
	}
	message := b.user[0]
	b.user = b.user[1:]
	b.invoke(message, b.invoker.InvokeUserMessage)
}

func (b *box) invoke(message any, handle func(any)) {
	b.host.world.Note("%s: %s ← %T", b.host.Name, b.actor.Self().GetId(), mailbox.Peek(actor.UnwrapEnvelopeMessage(message)))
	defer func() {
		if r := recover(); r != nil {
			b.invoker.EscalateFailure(r, message)
		}
	}()
	handle(message)
}
